"""What lies in the folders of the artifacts that a gate judged, for its page to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vitedge.core import report
from vitedge.core.bundle import LABELS, MANIFEST, REPORT, read_manifest
from vitedge.gate.subject import evidence_of
from vitedge.show.page.report import Report

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest
    from vitedge.gate.verdict import Verdict
    from vitedge.measure.accuracy.evidence import PerImage


@dataclass(frozen=True, eq=False)
class ArtifactFiles:
    """What is kept of one artifact."""

    report: Report
    """With its identity at least."""
    manifest: Manifest | None
    """None where only a report was given."""
    labels: tuple[str, ...]
    """The classes' names, as far as known."""
    per_image: PerImage | None
    """None where it was not validated, or not by what the report says."""


def gather(verdict: Verdict) -> dict[str, ArtifactFiles]:
    """What there is of each artifact, by the path that was judged. Raises InputError."""
    artifacts = {}
    for judged in verdict.judged:
        path = Path(judged.path)
        identity = {
            key: getattr(judged, key) for key in ("artifact", "model", "target", "precision")
        }
        artifacts[judged.path] = _gather(path, identity)
    return artifacts


def _gather(path: Path, identity: Report) -> ArtifactFiles:
    folder = path if path.is_dir() else path.parent
    content = report.read(folder / REPORT if path.is_dir() else path)
    validation = evidence_of(folder, content) if content else None
    return ArtifactFiles(
        report={**(msgspec.to_builtins(content) if content else {}), **identity},
        manifest=read_manifest(folder) if (folder / MANIFEST).is_file() else None,
        labels=_lines(folder / LABELS),
        per_image=validation.per_image if validation else None,
    )


def _lines(file: Path) -> tuple[str, ...]:
    return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()

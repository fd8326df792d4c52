"""What lies in the folders of the artifacts that a gate judged, for its page to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.bundle import LABELS, MANIFEST, read_labels, read_manifest
from vitedge.gate.subject import load

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest
    from vitedge.core.report import Report
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
    for path in dict.fromkeys(Path(judged.path) for judged in verdict.judged):
        subject, folder = load(path), path if path.is_dir() else path.parent
        labels = folder / LABELS
        artifacts[str(path)] = ArtifactFiles(
            report=subject.report,
            manifest=read_manifest(folder) if (folder / MANIFEST).is_file() else None,
            labels=read_labels(labels) if labels.is_file() else (),
            per_image=subject.evidence.per_image if subject.evidence else None,
        )
    return artifacts

"""What lies in the folders of the artifacts that a gate judged, for its page to show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core import report
from vitedge.core.bundle import LABELS, MANIFEST, REPORT, read_manifest
from vitedge.measure.accuracy import evidence
from vitedge.show.page.report import Report, look

if TYPE_CHECKING:
    from vitedge.core.manifest import Manifest
    from vitedge.gate.verdict import Verdict
    from vitedge.measure.accuracy.evidence import PerImage


@dataclass(frozen=True, eq=False)
class Found:
    """One artifact."""

    report: Report
    """With its identity at least."""
    manifest: Manifest | None
    """None where only a report was given."""
    labels: tuple[str, ...]
    """The classes' names, as far as known."""
    per_image: PerImage | None
    """None where it was not validated, or not by what the report says."""


def gather(verdict: Verdict) -> dict[str, Found]:
    """What there is of each artifact, by the path that was judged. Raises InputError."""
    found = {}
    for judged in verdict.judged:
        path = Path(judged.path)
        identity = {
            key: getattr(judged, key) for key in ("artifact", "model", "target", "precision")
        }
        found[judged.path] = _gather(path, identity)
    return found


def _gather(path: Path, identity: Report) -> Found:
    folder = path if path.is_dir() else path.parent
    said = report.read(folder / REPORT if path.is_dir() else path)
    names = folder / LABELS
    return Found(
        report={**said, **identity},
        manifest=read_manifest(folder) if (folder / MANIFEST).is_file() else None,
        labels=tuple(names.read_text(encoding="utf-8").splitlines()) if names.is_file() else (),
        per_image=_per_image(folder, said),
    )


def _per_image(folder: Path, said: Report) -> PerImage | None:
    """The evidence, where it is of the validation the report tells of."""
    kept = evidence.read(folder)
    if kept is None or kept.about.files != said.get("files"):
        return None
    known = (kept.about.metric, kept.about.data, len(kept.per_image.digests))
    wanted = tuple(look(said, "accuracy", key) for key in ("metric", "data", "n"))
    return kept.per_image if known == wanted else None

"""The steps that make artifacts: exports, and the engines that wait for their device."""

from __future__ import annotations

from collections.abc import Sequence

from vitedge.core.errors import LimitError
from vitedge.export import build as engines
from vitedge.export.job import export
from vitedge.export.selftest.subjects import Subject, request_of
from vitedge.export.selftest.work import Outcome, Work


def build(work: Work, subjects: Sequence[Subject]) -> Outcome:
    """Export one model in one precision, with the floats that come with it.

    Raises what an export does, and LimitError where it gave less than it had to.
    """
    first = subjects[0]
    output = work.artifacts / first.build
    precision = next(s.precision for s in reversed(subjects) if s.precision == first.build)
    floats = any(s.precision == "fp32" for s in subjects)
    request = request_of(first.model, work.asked, precision, output, only=not floats)
    results = export(request, work.steps)
    work.forget()
    by_precision = {result.bundle.manifest.precision: result for result in results}
    notes = [note for result in results for note in result.notes()]
    for note in notes:
        work.steps.note(note)
    missing = [s.precision for s in subjects if s.precision not in by_precision]
    if missing:
        why = next((note for note in notes if f"no {missing[0].upper()}" in note), "see its log")
        raise LimitError(f"{first.model}: no {' and no '.join(missing)} came of it: {why}")
    figures: dict[str, float] = {}
    for subject in subjects:
        report = by_precision[subject.precision].report
        simulation = report.simulation
        numerics = report.numerics or (simulation.numerics if simulation else None)
        if subject.precision != "fp32" and numerics and numerics.sqnr_db is not None:
            figures[f"{subject.precision}_sqnr_db"] = numerics.sqnr_db
    says = ", ".join(subject.precision for subject in subjects)
    levels = [f"{name.removesuffix('_sqnr_db')} {db:.1f} dB" for name, db in figures.items()]
    return Outcome(f"{says} ({', '.join(levels)})" if levels else says, figures)


def engine(work: Work, subject: Subject) -> Outcome:
    """Compile the engine of an artifact, where it waits for this machine."""
    bundle = work.bundle(subject)
    record = bundle.manifest.build
    if record is None or record.state == "done":
        return Outcome("it was built with the artifact")
    built = engines.build(bundle, work.steps, force=False)
    work.forget()
    return Outcome(f"{built.size_bytes / 2**20:.1f} MiB", {"engine_bytes": built.size_bytes})

"""Two artifacts of one model side by side, paired wherever both were measured on the same."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.core.host import states
from vitedge.core.report import Metric
from vitedge.gate import drop
from vitedge.gate.speed import Speed, speed_of
from vitedge.gate.subject import Subject, load
from vitedge.gate.verdict import FP32

SCHEMA = "vitedge.comparison/1"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two was measured to be; None where it was not."""

    artifact: str
    path: str
    target: str
    precision: str
    accuracy: float | None
    sqnr_db: float | None
    token_sqnr_db: float | None
    """Of the worst token or pixel."""
    p50_ms: float | None
    p90_ms: float | None
    size_bytes: int | None
    peak_rss_bytes: int | None


class AccuracyDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What the second loses, on the same images."""

    metric: Metric
    drop_pp: float
    drop_ci_pp: tuple[float, float]
    agreement: float | None
    """Share of images on which both choose the same class; None but for `top1`."""
    n: int


class LatencyDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How much faster the second is."""

    speedup: float
    """p50 of the first over the second's."""
    speedup_ci: tuple[float, float] | None
    how: str
    """How the two came to be compared."""


class ArtifactComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The second against the first."""

    schema: str
    model: str
    confidence: float
    """Two-sided, of the intervals."""
    sides: tuple[Side, Side]
    accuracy: AccuracyDifference | None
    latency: LatencyDifference | None
    notes: tuple[str, ...]
    """Why what is None is."""


def compare(first: Path, second: Path, confidence: float = 0.95) -> ArtifactComparison:
    """Compare two bundles or reports.

    Raises InputError where they are of different models, LimitError where FP32 is no baseline.
    """
    bundles = {path: open_bundle(path) for path in (first, second) if path.is_dir()}
    if bundles:
        from vitedge.gate import measurement  # brings the runtimes' side, which a report needs not

        measurement.check_references([*bundles.values()])
    subjects = load(first, bundles.get(first)), load(second, bundles.get(second))
    models = [subject.report.model for subject in subjects]
    if models[0] != models[1]:
        raise InputError(
            f"{first} is a {models[0]} and {second} a {models[1]}",
            fix="compare two artifacts of one model",
        )
    accuracy, latency = _accuracy(*subjects, confidence), _latency(*subjects, confidence)
    return ArtifactComparison(
        schema=SCHEMA,
        model=models[0],
        confidence=confidence,
        sides=(_side(subjects[0]), _side(subjects[1])),
        accuracy=None if isinstance(accuracy, str) else accuracy,
        latency=None if isinstance(latency, str) else latency,
        notes=tuple(why for why in (accuracy, latency) if isinstance(why, str)),
    )


def _side(subject: Subject) -> Side:
    report = subject.report
    return Side(
        artifact=report.artifact,
        path=str(subject.path),
        target=report.target,
        precision=report.precision,
        accuracy=report.accuracy.artifact if report.accuracy else None,
        sqnr_db=report.numerics.sqnr_db if report.numerics else None,
        token_sqnr_db=report.numerics.worst_token_db if report.numerics else None,
        p50_ms=report.latency.p50_ms if report.latency else None,
        p90_ms=report.latency.p90_ms if report.latency else None,
        size_bytes=report.size.bytes if report.size else None,
        peak_rss_bytes=report.memory.peak_rss_bytes if report.memory else None,
    )


def _accuracy(first: Subject, second: Subject, confidence: float) -> AccuracyDifference | str:
    """What is lost; else why that cannot be told."""
    before, after = first.evidence, second.evidence
    if before is None or after is None:
        bare = first if before is None else second
        return f"accuracy is not paired: {bare.path} has no evidence of each image"
    metric = before.about.metric
    if after.about.metric != metric:
        raise InputError(
            f"{first.path} was measured by {metric}, {second.path} by {after.about.metric}",
            fix="compare two artifacts of one task",
        )
    try:
        paired = drop.pair(before.per_image, after.per_image, (str(first.path), str(second.path)))
    except InputError as error:
        return f"accuracy is not paired: {error.what}"
    accuracy_drop = drop.between(metric, paired, (1 + confidence) / 2)
    return AccuracyDifference(
        metric=metric,
        drop_pp=accuracy_drop.points,
        drop_ci_pp=accuracy_drop.interval_pp,
        agreement=float((paired.first == paired.second).mean()) if metric == "top1" else None,
        n=accuracy_drop.n,
    )


def _latency(first: Subject, second: Subject, confidence: float) -> LatencyDifference | str:
    """How much faster; else why that cannot be told."""
    a, b = first.report.latency, second.report.latency
    if a is None or b is None:
        return "latency is not compared: not both were timed"
    if any(x.report.conditions and x.report.conditions.fp32_floats for x in (first, second)):
        return "latency is not compared: BF16 was timed on a CPU that computes it in FP32"
    if a.batch != b.batch:
        return f"latency is not compared: timed at batch {a.batch} and at batch {b.batch}"
    speed_a, speed_b = speed_of(a), speed_of(b)
    if (
        speed_b
        and b.against not in (None, FP32)
        and Path(b.against).resolve() == first.folder.resolve()
    ):
        how = f"the second timed in turn with what {b.against} was then"
        return _difference(speed_b, confidence, how)
    if first.fingerprint is None or second.fingerprint is None:
        return "latency is not compared: it is not known where both were timed"
    if first.fingerprint != second.fingerprint:
        if changed := states(first.report.host, second.report.host):
            return f"latency is not compared: timed in {changed[0]} and in {changed[1]}"
        return "latency is not compared: the two were timed on different machines"
    if a.against == b.against == FP32 and speed_a and speed_b:
        how = "each timed in turn with FP32, on this kind of machine"
        return _difference(speed_b.over(speed_a), confidence, how)
    how = "timed apart on this kind of machine, so drift is in it"
    return LatencyDifference(speedup=a.p50_ms / b.p50_ms, speedup_ci=None, how=how)


def _difference(speed: Speed, confidence: float, how: str) -> LatencyDifference:
    interval = speed.interval(confidence)
    return LatencyDifference(speedup=speed.ratio, speedup_ci=interval, how=how)

"""Two artifacts of one model side by side, paired wherever both were measured on the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from vitedge.core.errors import InputError
from vitedge.core.report import Metric
from vitedge.gate import drop
from vitedge.gate.subject import Subject, load
from vitedge.measure.statistics import around

SCHEMA = "vitedge.comparison/1"
FP32 = "fp32"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two was measured to be; None where it was not."""

    artifact: str
    path: str
    target: str
    precision: str
    accuracy: float | None
    sqnr_db: float | None
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
    """Compare two bundles or reports. Raises InputError where they are of different models."""
    subjects = load(first), load(second)
    models = [subject.report.model for subject in subjects]
    if models[0] != models[1]:
        raise InputError(
            f"{first} is a {models[0]} and {second} a {models[1]}",
            fix="compare two artifacts of one model",
        )
    notes: list[str] = []
    return ArtifactComparison(
        schema=SCHEMA,
        model=models[0],
        confidence=confidence,
        sides=(_side(subjects[0]), _side(subjects[1])),
        accuracy=_accuracy(*subjects, confidence, notes),
        latency=_latency(*subjects, confidence, notes),
        notes=tuple(notes),
    )


def _side(subject: Subject) -> Side:
    def value(section: msgspec.Struct | None, name: str) -> Any:
        return getattr(section, name) if section else None

    return Side(
        artifact=subject.report.artifact,
        path=str(subject.path),
        target=subject.report.target,
        precision=subject.report.precision,
        accuracy=value(subject.report.accuracy, "artifact"),
        sqnr_db=value(subject.report.numerics, "sqnr_db"),
        p50_ms=value(subject.report.latency, "p50_ms"),
        p90_ms=value(subject.report.latency, "p90_ms"),
        size_bytes=value(subject.report.size, "bytes"),
        peak_rss_bytes=value(subject.report.memory, "peak_rss_bytes"),
    )


def _accuracy(
    first: Subject, second: Subject, confidence: float, notes: list[str]
) -> AccuracyDifference | None:
    for subject in (first, second):
        if subject.evidence is None:
            notes.append(f"accuracy is not paired: {subject.path} has no evidence of each image")
            return None
    assert first.evidence and second.evidence
    metric = first.evidence.about.metric
    if second.evidence.about.metric != metric:
        raise InputError(
            f"{first.path} was measured by {metric}, {second.path} by "
            f"{second.evidence.about.metric}",
            fix="compare two artifacts of one task",
        )
    try:
        paired = drop.pair(
            first.evidence.per_image,
            second.evidence.per_image,
            (str(first.path), str(second.path)),
        )
    except InputError as error:
        notes.append(f"accuracy is not paired: {error.what}")
        return None
    accuracy_drop = drop.between(metric, *paired, (1 + confidence) / 2)
    agreement = float((paired.first == paired.second).mean()) if metric == "top1" else None
    return AccuracyDifference(
        metric=metric,
        drop_pp=accuracy_drop.points,
        drop_ci_pp=accuracy_drop.interval_pp,
        agreement=agreement,
        n=accuracy_drop.n,
    )


def _latency(
    first: Subject, second: Subject, confidence: float, notes: list[str]
) -> LatencyDifference | None:
    a, b = first.report.latency, second.report.latency
    if a is None or b is None:
        notes.append("latency is not compared: not both were timed")
        return None
    if a.batch != b.batch:
        notes.append(f"latency is not compared: timed at batch {a.batch} and at batch {b.batch}")
        return None
    direct = b.against not in (None, FP32) and _same(Path(b.against or ""), first.path)
    if direct and b.speedup and b.speedup_log_se is not None and b.rounds > 1:
        interval = around(b.speedup, b.speedup_log_se, b.rounds, confidence)
        how = f"the second timed in turn with what {b.against} was then"
        return LatencyDifference(speedup=b.speedup, speedup_ci=interval, how=how)
    if first.fingerprint is None or second.fingerprint is None:
        notes.append("latency is not compared: it is not known where both were timed")
        return None
    if first.fingerprint != second.fingerprint:
        notes.append("latency is not compared: the two were timed on different machines")
        return None
    if a.against == b.against == FP32 and a.speedup and b.speedup:
        speedup_ci: tuple[float, float] | None = None
        if a.speedup_log_se is not None and b.speedup_log_se is not None:
            error = math.hypot(a.speedup_log_se, b.speedup_log_se)
            rounds = max(2, min(a.rounds, b.rounds))
            speedup_ci = around(b.speedup / a.speedup, error, rounds, confidence)
        how = "each timed in turn with FP32, on this kind of machine"
        return LatencyDifference(speedup=b.speedup / a.speedup, speedup_ci=speedup_ci, how=how)
    how = "timed apart on this kind of machine, so drift is in it"
    return LatencyDifference(speedup=a.p50_ms / b.p50_ms, speedup_ci=None, how=how)


def _same(path: Path, other: Path) -> bool:
    folder = other if other.is_dir() else other.parent
    return path.resolve() == folder.resolve()

"""What a gate holds artifacts to: a limit is declared once, here, with how a report is held to it.

The command line's options, keys of vitedge.toml and inputs of the GitHub action come from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from vitedge.core.errors import InputError
from vitedge.core.host import states
from vitedge.core.spec import Level, Spec
from vitedge.gate.decision import Criterion, more_needed
from vitedge.gate.verdict import FP32, Bound, Check

if TYPE_CHECKING:
    from vitedge.core.report import Numerics
    from vitedge.gate.subject import Subject

# checks import numpy themselves: the command line reads this module for its help

Amount = Annotated[float, msgspec.Meta(ge=0)]
Ratio = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True)
class Limit:
    """What a limit is on, and how an artifact is held to it, at a one-sided confidence."""

    description: str
    metric: str
    """As `Check` names it."""
    unit: str
    """Shown after a number."""
    check: Callable[[Criterion, Subject, float], Check | None] | None
    """Of the artifact by itself and against FP32. Returns None where that was not measured."""
    check_since: Callable[[Subject, Criterion, Subject, float], Check | None] | None = None
    """Against the one that was accepted before it, which comes first."""
    measured_by: Literal["validate", "bench"] = "validate"
    of_outputs: bool = False
    """Whether it is on what an artifact computes: one that lost parity fails."""
    in_turn: bool = False
    """Whether it is on an artifact's speed over FP32's."""
    scale: float = 1.0
    """Of the unit, in the metric's own."""


def _drop(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    from vitedge.gate import drop

    accuracy = subject.report.accuracy
    if accuracy is None:
        return None
    if subject.report.precision == FP32:
        return criterion.exact(0.0, note=": it is FP32 itself")
    if accuracy.fp32 is None:
        return criterion.missing("its FP32 bundle was not beside it when validated")
    accuracy_drop = drop.against_fp32(accuracy, subject.evidence, confidence)
    if accuracy_drop is None:
        why = f"the report tells too little for {confidence:g}, and has no evidence.npz beside it"
        return criterion.missing(why)
    return accuracy_drop.check(criterion, confidence)


def _drop_since(
    accepted: Subject, criterion: Criterion, subject: Subject, confidence: float
) -> Check:
    """Raises InputError where the two were validated otherwise."""
    from vitedge.gate import drop

    if subject.evidence is None or accepted.evidence is None:
        return criterion.missing("no evidence.npz of its validation beside the report")
    before, now = accepted.evidence.about, subject.evidence.about
    if now.metric != before.metric:
        raise InputError(
            f"{accepted.path} measures {before.metric}, and {subject.path} {now.metric}",
            fix="accept it into a new file with `accept=True`",
        )
    if now.preprocessing != before.preprocessing:
        raise InputError(
            f"{accepted.path} cannot speak for the accuracy of {subject.path}: it was accepted "
            "with other preprocessing",
            fix="accept it into a new file with `accept=True`, or export as before",
        )
    names = str(accepted.path), str(subject.path)
    paired = drop.pair(accepted.evidence.per_image, subject.evidence.per_image, names)
    return drop.between(now.metric, paired, confidence).check(criterion, confidence)


def _speedup(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    from vitedge.gate.speed import speed_of

    latency = subject.report.latency
    if latency is None:
        return None
    if latency.against not in (None, FP32):
        return criterion.missing(f"it was timed with {latency.against}, not with FP32")
    speed = speed_of(latency)
    if speed is None:
        return criterion.missing("it was timed alone, not in turn with FP32")
    return speed.check(criterion, latency.n, confidence)


def _speedup_over_float(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    from vitedge.gate.speed import speed_over_float

    latency, recommendation = subject.report.latency, subject.report.recommendation
    if latency is None:
        return None
    if recommendation is None:
        return criterion.missing("it was not timed in turn with a float precision")
    if subject.report.precision == recommendation.best_float:
        return criterion.missing(f"{recommendation.best_float.upper()} is the best float itself")
    speed = speed_over_float(latency, recommendation.best_float)
    if speed is None:
        name = recommendation.best_float.upper()
        return criterion.missing(f"it was not timed in turn with {name}, the best float")
    return speed.check(criterion, latency.n, confidence)


def _slowdown_since(
    accepted: Subject, criterion: Criterion, subject: Subject, confidence: float
) -> Check | None:
    """Raises InputError where the two were timed otherwise."""
    from vitedge.gate.speed import speed_of

    latency, before = subject.report.latency, accepted.report.latency
    if latency is None:
        return None
    if subject.fingerprint is None:
        return criterion.missing(f"it is not known where it was timed: {subject.to_run('bench')}")
    where = ""
    if before is None or accepted.fingerprint is None:
        where = "without being timed by 'bench'"
    elif accepted.fingerprint != subject.fingerprint:
        where = "on another machine"
        if changed := states(accepted.report.host, subject.report.host):
            where = f"in {changed[0]}, and timed in {changed[1]}"
    elif before.batch != latency.batch:
        where = f"at batch {before.batch}, and timed at {latency.batch}"
    if before is None or where:
        raise InputError(
            f"{accepted.path} cannot speak for the latency of {subject.path}: it was accepted "
            f"{where}",
            fix="drop `max_slowdown`, or bench alike and accept into a new file on this machine",
        )
    speed, speed_before = (
        speed_of(timing) if timing.against == FP32 else None for timing in (latency, before)
    )
    if speed is None or speed_before is None:
        untimed = "it" if speed is None else "the baseline"
        return criterion.missing(f"{untimed} was not timed in turn with FP32")
    return speed_before.over(speed).check(criterion, latency.n, confidence)


def _p90(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    from vitedge.measure.statistics import quantile_limits

    latency = subject.report.latency
    if latency is None:
        return None
    if latency.p90_ms is None:
        return criterion.missing(f"p90 needs 64 runs, not {latency.n}")
    if latency.rounds < 2:
        return criterion.missing("it was timed in fewer than 2 rounds")
    percentiles, share_se = latency.distribution.quantiles_ms, latency.p90_share_se
    interval = quantile_limits(percentiles, 0.9, share_se, latency.rounds, 2 * confidence - 1)
    within = sum(percentile <= criterion.limit for percentile in percentiles) / len(percentiles)
    needed = more_needed(latency.n, abs(within - 0.9), share_se, confidence)
    return criterion.uncertain(latency.p90_ms, interval, needed, "runs")


def _size(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    size = subject.report.size
    return criterion.exact(size.bytes) if size else None


def _rss(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    memory = subject.report.memory
    return criterion.exact(memory.peak_rss_bytes) if memory else None


def _agreement(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    accuracy = subject.report.accuracy
    if accuracy is None:
        return None
    if accuracy.agreement is None:
        return criterion.missing("it chooses no classes, or not beside FP32")
    share = accuracy.agreement
    return criterion.exact(share, f"{share:.4f} of {accuracy.n:,} images")


def _sqnr(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    numerics = subject.report.numerics
    return _level(criterion, numerics, numerics.sqnr_db) if numerics else None


def _token_sqnr(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    numerics = subject.report.numerics
    if numerics is None:
        return None
    if numerics.token_sqnr_db is None and numerics.sqnr_db is not None:
        if numerics.kept_queries is not None:
            return criterion.missing("its queries are matched with FP32's, wherever they stand")
        return criterion.missing("its main output has no tokens and no pixels")
    return _level(criterion, numerics, numerics.worst_token_db)


def _level(criterion: Criterion, numerics: Numerics, level_db: float | None) -> Check:
    """A signal to noise of the main output, infinite where that equals FP32's."""
    if level_db is not None:
        return criterion.exact(level_db, f"{level_db:.1f} dB")
    if numerics.max_abs_error == 0:
        return criterion.exact(math.inf, "equal to FP32")
    return criterion.missing("an output is not finite")


def _accuracy(criterion: Criterion, subject: Subject, confidence: float) -> Check | None:
    accuracy = subject.report.accuracy
    if accuracy is None:
        return None
    if accuracy.metric != criterion.metric:
        return criterion.missing(f"its metric is {accuracy.metric}")
    share = accuracy.artifact
    return criterion.exact(share, f"{share:.4f} on {accuracy.n:,} images")


_on_outputs = partial(Limit, of_outputs=True)
_on_runs = partial(Limit, measured_by="bench")
_in_turn = partial(_on_runs, in_turn=True)


class Limits(Spec, frozen=True, kw_only=True):
    """One limit of each kind; None: no limit."""

    max_drop_pp: Annotated[
        Amount | None,
        _on_outputs(
            "Largest accuracy lost, percentage points.", "drop_pp", " pp", _drop, _drop_since
        ),
    ] = None
    """Accuracy (top-1, mIoU, mAP, k-NN agreement, or pixel error gained) lost against FP32 and the
    baseline, points."""
    min_speedup: Annotated[
        Ratio | None, _in_turn("Least speed-up over FP32.", "speedup", "×", _speedup)
    ] = None
    """p50 of FP32, timed in turn with it, over its own."""
    min_speedup_over_float: Annotated[
        Ratio | None,
        _in_turn(
            "Least speed-up over the best float precision.",
            *("speedup_over_float", "×", _speedup_over_float),
        ),
    ] = None
    """p50 of the float precision that would be shipped without it, over its own."""
    max_p90_ms: Annotated[
        Ratio | None, _on_runs("Longest p90, milliseconds.", "p90_ms", " ms", _p90)
    ] = None
    max_slowdown: Annotated[
        Ratio | None,
        _in_turn(
            "Longest latency over the baseline's, both relative to FP32's.",
            *("slowdown", "×", None, _slowdown_since),
        ),
    ] = None
    """p50 over FP32's, divided by the same of the baseline."""
    max_size_mb: Annotated[
        Ratio | None, Limit("Largest size, MB.", "size_bytes", " MB", _size, scale=1e6)
    ] = None
    """Of the files a runtime loads, 10⁶ bytes."""
    max_rss_mb: Annotated[
        Ratio | None, _on_runs("Largest peak RSS, MB.", "peak_rss_bytes", " MB", _rss, scale=1e6)
    ] = None
    """Peak resident memory, 10⁶ bytes."""
    min_agreement: Annotated[
        Level | None,
        _on_outputs("Least share of images on which both agree, 0-1.", "agreement", "", _agreement),
    ] = None
    """Share of images (pixels) on which artifact and FP32 choose the same class."""
    min_sqnr_db: Annotated[
        float | None, _on_outputs("Least SQNR, dB.", "sqnr_db", " dB", _sqnr)
    ] = None
    """Of the main output."""
    min_token_sqnr_db: Annotated[
        float | None,
        _on_outputs("Least SQNR of a token or pixel, dB.", "token_sqnr_db", " dB", _token_sqnr),
    ] = None
    """Of the worst one, of a main output that has several."""
    min_top1: Annotated[Level | None, _on_outputs("Least top-1, 0-1.", "top1", "", _accuracy)] = (
        None
    )
    min_miou: Annotated[Level | None, _on_outputs("Least mIoU, 0-1.", "miou", "", _accuracy)] = None
    min_map: Annotated[Level | None, _on_outputs("Least mAP, 0-1.", "map", "", _accuracy)] = None
    """COCO's, over IoU from 0.50 to 0.95."""


LIMITS: dict[str, Limit] = {
    field.name: field.type.__metadata__[0] for field in msgspec.structs.fields(Limits)
}
"""By name: that of a parameter, and of a key in vitedge.toml."""


def criterion(name: str, limit: float) -> Criterion:
    """What the limit called `name` holds artifacts to where it is set to `limit`."""
    kind = LIMITS[name]
    bound: Bound = "max" if name.startswith("max_") else "min"
    return Criterion(kind.metric, bound, limit * kind.scale, kind.unit, kind.scale)


def active_limits(limits: Limits) -> dict[str, float]:
    """Those that are set."""
    return {name: limit for name in LIMITS if (limit := getattr(limits, name)) is not None}

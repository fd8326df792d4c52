"""Each limit against what was measured of one artifact."""

from __future__ import annotations

import math
from collections.abc import Callable

from vitedge.gate import decision, drop
from vitedge.gate.decision import exact, missing, uncertain
from vitedge.gate.limits import Limits, active_limits
from vitedge.gate.subject import Subject
from vitedge.gate.verdict import Check, Judged, worst
from vitedge.measure.statistics import around, quantile_limits

FP32 = "fp32"


def judge(subject: Subject, limits: Limits, confidence: float) -> Judged:
    """Judge an artifact by itself and against FP32; `confidence` is one-sided."""
    checks = []
    for name, limit in active_limits(limits).items():
        if name in _CHECKS:
            check = _CHECKS[name](subject, limit, confidence)
            if subject.broken and name in _COMPUTED:
                check = missing(check.metric, check.bound, limit, subject.broken)
            checks.append(check)
    return judged(subject, FP32, checks)


def judged(subject: Subject, against: str, checks: list[Check]) -> Judged:
    """The checks of one artifact, and the worst of their answers."""
    identity = subject.report
    return Judged(
        artifact=identity.artifact,
        path=str(subject.path),
        model=identity.model,
        target=identity.target,
        precision=identity.precision,
        against=against,
        checks=tuple(checks),
        answer=worst(tuple(check.answer for check in checks)),
    )


def _validate(subject: Subject) -> str:
    return f"run 'vitedge validate {subject.name}'"


def _bench(subject: Subject) -> str:
    return f"run 'vitedge bench {subject.name}'"


def _drop(subject: Subject, limit: float, confidence: float) -> Check:
    metric, accuracy = "drop_pp", subject.report.accuracy
    if accuracy is None:
        return missing(metric, "max", limit, _validate(subject))
    if subject.report.precision == FP32:
        return exact(metric, "max", limit, 0.0, f"0 pp, max {limit:g} pp: it is FP32 itself")
    if accuracy.fp32 is None:
        return missing(metric, "max", limit, "its FP32 bundle was not beside it when validated")
    accuracy_drop = drop.against_fp32(accuracy, subject.evidence, confidence)
    if accuracy_drop is None:
        why = f"the report tells too little for {confidence:g}, and has no evidence.npz beside it"
        return missing(metric, "max", limit, why)
    return of_drop(accuracy_drop, limit, confidence)


def of_drop(accuracy_drop: drop.Drop, limit: float, confidence: float) -> Check:
    """The check of what was lost, whatever it was lost against."""
    needed = accuracy_drop.images_needed(limit, confidence)
    interval = accuracy_drop.interval_pp
    return uncertain(
        "drop_pp", "max", limit, accuracy_drop.points, interval, needed, " pp", "images"
    )


def _speedup(subject: Subject, limit: float, confidence: float) -> Check:
    metric, latency = "speedup", subject.report.latency
    if latency is None:
        return missing(metric, "min", limit, _bench(subject))
    if latency.against not in (None, FP32):
        return missing(metric, "min", limit, f"it was timed with {latency.against}, not with FP32")
    if latency.speedup is None or latency.speedup_log_se is None:
        return missing(metric, "min", limit, "it was timed alone, not in turn with FP32")
    return of_ratio(
        metric,
        "min",
        limit,
        latency.speedup,
        latency.speedup_log_se,
        latency.rounds,
        latency.n,
        confidence,
    )


def of_ratio(
    metric: str,
    bound: decision.Bound,
    limit: float,
    ratio: float,
    log_se: float,
    rounds: int,
    runs: int,
    confidence: float,
) -> Check:
    """The check of a ratio of latencies that is known to a standard error of its logarithm."""
    if not ratio > 0 or rounds < 2:
        return missing(metric, bound, limit, "it is no ratio of latencies of 2 rounds or more")
    interval = around(ratio, log_se, rounds, 2 * confidence - 1)
    gap = abs(math.log(ratio) - math.log(limit))
    needed = decision.more_needed(runs, gap, log_se, confidence)
    return uncertain(metric, bound, limit, ratio, interval, needed, "×", "runs")


def _p90(subject: Subject, limit: float, confidence: float) -> Check:
    metric, latency = "p90_ms", subject.report.latency
    if latency is None:
        return missing(metric, "max", limit, _bench(subject))
    if latency.p90_ms is None:
        return missing(metric, "max", limit, f"p90 needs 64 runs, not {latency.n}")
    if latency.rounds < 2:
        return missing(metric, "max", limit, "it was timed in fewer than 2 rounds")
    percentiles = latency.distribution.quantiles_ms
    interval = quantile_limits(
        percentiles, 0.9, latency.p90_share_se, latency.rounds, 2 * confidence - 1
    )
    within = sum(percentile <= limit for percentile in percentiles) / len(percentiles)
    needed = decision.more_needed(latency.n, abs(within - 0.9), latency.p90_share_se, confidence)
    return uncertain(metric, "max", limit, latency.p90_ms, interval, needed, " ms", "runs")


def _size(subject: Subject, limit: float, confidence: float) -> Check:
    if subject.report.size is None:
        return missing("size_bytes", "max", limit * 1e6, _validate(subject))
    return _megabytes("size_bytes", subject.report.size.bytes, limit)


def _rss(subject: Subject, limit: float, confidence: float) -> Check:
    if subject.report.memory is None:
        return missing("peak_rss_bytes", "max", limit * 1e6, _bench(subject))
    return _megabytes("peak_rss_bytes", subject.report.memory.peak_rss_bytes, limit)


def _megabytes(metric: str, size_bytes: int, limit: float) -> Check:
    return exact(
        metric, "max", limit * 1e6, size_bytes, f"{size_bytes / 1e6:.4g} MB, max {limit:g} MB"
    )


def _agreement(subject: Subject, limit: float, confidence: float) -> Check:
    accuracy = subject.report.accuracy
    if accuracy is None or accuracy.agreement is None:
        return missing("agreement", "min", limit, _validate(subject))
    reason = f"{accuracy.agreement:.4f} of {accuracy.n:,} images, min {limit:g}"
    return exact("agreement", "min", limit, accuracy.agreement, reason)


def _sqnr(subject: Subject, limit: float, confidence: float) -> Check:
    numerics = subject.report.numerics
    if numerics is None:
        return missing("sqnr_db", "min", limit, _validate(subject))
    if numerics.sqnr_db is None:
        if numerics.max_abs_error != 0:
            return missing("sqnr_db", "min", limit, "an output is not finite")
        return exact("sqnr_db", "min", limit, math.inf, f"equal to FP32, min {limit:g} dB")
    reason = f"{numerics.sqnr_db:.1f} dB, min {limit:g} dB"
    return exact("sqnr_db", "min", limit, numerics.sqnr_db, reason)


def _metric(metric: str) -> Callable[[Subject, float, float], Check]:
    def check(subject: Subject, limit: float, confidence: float) -> Check:
        accuracy = subject.report.accuracy
        if accuracy is None:
            return missing(metric, "min", limit, _validate(subject))
        if accuracy.metric != metric:
            return missing(metric, "min", limit, f"its metric is {accuracy.metric}")
        reason = f"{accuracy.artifact:.4f} on {accuracy.n:,} images, min {limit:g}"
        return exact(metric, "min", limit, accuracy.artifact, reason)

    return check


_CHECKS: dict[str, Callable[[Subject, float, float], Check]] = {
    "max_drop_pp": _drop,
    "min_speedup": _speedup,
    "max_p90_ms": _p90,
    "max_size_mb": _size,
    "max_rss_mb": _rss,
    "min_agreement": _agreement,
    "min_sqnr_db": _sqnr,
    "min_top1": _metric("top1"),
    "min_miou": _metric("miou"),
}
_COMPUTED = ("max_drop_pp", "min_agreement", "min_sqnr_db", "min_top1", "min_miou")
"""Limits on what the outputs are."""

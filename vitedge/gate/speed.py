"""How much faster one model is than another: a ratio of latencies, and what it is known to."""

from __future__ import annotations

import math
from typing import NamedTuple

from vitedge.core.measurements import Latency
from vitedge.core.spec import Precision
from vitedge.gate.decision import Criterion, more_needed
from vitedge.gate.verdict import Check
from vitedge.measure.statistics import around


class Speed(NamedTuple):
    """p50 of another model over its own."""

    ratio: float
    log_se: float
    """Standard error of the ratio's logarithm."""
    rounds: int
    """In which the two were timed in turn."""

    def over(self, other: Speed) -> Speed:
        """Over a third model, where both were timed in turn with the same."""
        log_se = math.hypot(self.log_se, other.log_se)
        return Speed(self.ratio / other.ratio, log_se, min(self.rounds, other.rounds))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Bound the ratio, two-sided."""
        return around(self.ratio, self.log_se, self.rounds, confidence)

    def check(self, criterion: Criterion, runs: int, confidence: float) -> Check:
        """Hold the ratio, measured by so many runs, to a limit; `confidence` is one-sided."""
        gap = abs(math.log(self.ratio) - math.log(criterion.limit))
        needed = more_needed(runs, gap, self.log_se, confidence)
        interval = self.interval(2 * confidence - 1)
        return criterion.uncertain(self.ratio, interval, needed, "runs")


def speed_over_float(latency: Latency, best_float: Precision) -> Speed | None:
    """Its speed against the best float precision, where both were timed in one run; else None."""
    if best_float == "fp32":
        return speed_of(latency) if latency.against == "fp32" else None
    lead = latency.over.get(best_float)
    if lead is None or latency.rounds < 2:
        return None
    return Speed(lead.speedup, lead.log_se, latency.rounds)


def speed_of(latency: Latency) -> Speed | None:
    """Its speed against what it was timed in turn with, in 2 rounds or more; else None."""
    ratio, log_se = latency.speedup, latency.speedup_log_se
    if ratio is None or not ratio > 0 or log_se is None or latency.rounds < 2:
        return None
    return Speed(ratio, log_se, latency.rounds)

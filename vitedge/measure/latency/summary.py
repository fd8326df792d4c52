"""What is said of timed runs: percentiles, speedups, trends, and what plots need."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitedge.core.errors import InputError
from vitedge.core.measurements import Distribution, Drift, Percentiles, Timing
from vitedge.measure.statistics import ratio_of_medians, students_t

P90_RUNS, P99_RUNS = 64, 662
"""Fewest runs a percentile is reported from: MLPerf Inference's early-stopping rule."""
POINTS = 120
"""Of a series of latencies, at most."""
DIGITS = 5
"""Of a number that is only drawn."""
SHORTEST_TREND_S = 10.0
"""Of a run that a trend is looked for in."""
SEGMENTS = 30
"""Of that run, each one point of the line."""
CONFIDENCE = 0.95
SLOWER_PERCENT = 3.0
"""Lost over the whole run, from which a drift is worth saying."""


def summarize(samples_ms: ArrayLike) -> Percentiles:
    """Summarize the latencies of one or more runs, milliseconds, any shape.

    p90 needs 64 runs and p99 662 (MLPerf Inference, early stopping at 99% confidence).
    """
    samples = np.asarray(samples_ms, dtype=np.float64).ravel()
    if not samples.size:
        raise InputError("no runs to summarize", fix="measure for longer")
    p50, p90, p99 = (float(p) for p in np.percentile(samples, [50, 90, 99]))
    return Percentiles(
        p50_ms=p50,
        p90_ms=p90 if samples.size >= P90_RUNS else None,
        p99_ms=p99 if samples.size >= P99_RUNS else None,
        mean_ms=float(samples.mean()),
        n=samples.size,
    )


@dataclass(frozen=True, eq=False)
class LatencyComparison:
    """Sessions timed in turn, in the order they were given."""

    latencies: tuple[Percentiles, ...]
    rounds: tuple[NDArray[np.float64], ...]
    """Every timed run, milliseconds: one (rounds, runs) array per session. Row i of all of them
    was measured in round i; `runs` differs between sessions."""
    starts_s: tuple[NDArray[np.float64], ...]
    """When each of them began, seconds since timing did: one (rounds,) array per session."""

    def speedup(self, artifact: int, reference: int) -> tuple[float, tuple[float, float]]:
        """How many times faster session `artifact` is than `reference`, and its 95% interval.

        Reference p50 over artifact p50; 2.0 is half the latency.
        """
        ratio = self.latencies[reference].p50_ms / self.latencies[artifact].p50_ms
        return ratio, ratio_of_medians(self.rounds[reference], self.rounds[artifact])


def timing(starts_s: NDArray[np.float64], rounds_ms: NDArray[np.float64]) -> Timing:
    """Summarize runs, (rounds, runs) milliseconds, whose rounds began at `starts_s`, (rounds,)."""
    percentiles = msgspec.structs.asdict(summarize(rounds_ms))
    return Timing(**percentiles, distribution=distribution(starts_s, rounds_ms))


def timings(comparison: LatencyComparison) -> list[Timing]:
    """Summarize each session of a comparison."""
    sessions = zip(comparison.starts_s, comparison.rounds, strict=True)
    return [timing(starts_s, rounds_ms) for starts_s, rounds_ms in sessions]


def distribution(starts_s: NDArray[np.float64], rounds_ms: NDArray[np.float64]) -> Distribution:
    """What plots need of (rounds, runs) latencies."""
    parts = np.array_split(np.arange(len(starts_s)), min(POINTS, len(starts_s)))
    return Distribution(
        quantiles_ms=tuple(_short(q) for q in np.percentile(rounds_ms, np.arange(101))),
        series=tuple(
            (_short(starts_s[part].mean()), _short(np.median(rounds_ms[part]))) for part in parts
        ),
    )


def _short(value: float | np.floating) -> float:
    return float(f"{value:.{DIGITS}g}")


def trend(starts_s: NDArray[np.float64], rounds_ms: NDArray[np.float64]) -> Drift | None:
    """Fit a line to the logarithm of latency; None below 10 s or 10 rounds.

    Nothing is said of heat. It is slower where the interval is above zero, and 3% were lost.

    Noise on a real machine comes in spells, so neighbours are no independent witnesses: the
    number of segments is cut by the lag-1 autocorrelation r of the residuals to n(1 - r)/(1 + r)
    before the interval is taken (Santer et al., J. Geophys. Res. 105, 2000).

    Args:
        starts_s: (rounds,) when each round began, ascending.
        rounds_ms: (rounds, runs) latencies.
    """
    rounds = len(starts_s)
    duration_s = float(starts_s[-1] - starts_s[0])
    if duration_s < SHORTEST_TREND_S or rounds < 10:
        return None
    parts = np.array_split(np.arange(rounds), min(SEGMENTS, rounds))
    at = np.array([starts_s[part].mean() for part in parts]) / 60
    level = np.log([np.median(rounds_ms[part]) for part in parts])
    centred = at - at.mean()
    spread = float(centred @ centred)
    slope = float(centred @ level) / spread
    residuals = level - level.mean() - slope * centred
    power = float(residuals @ residuals)
    lag = float(residuals[1:] @ residuals[:-1]) / power if power else 0.0
    independent = len(parts) * (1 - max(0.0, lag)) / (1 + max(0.0, lag))
    freedom = max(3.0, independent - 2)
    margin = students_t(CONFIDENCE, freedom) * sqrt(power / freedom / spread)
    low, middle, high = (100 * value for value in (slope - margin, slope, slope + margin))
    return Drift(
        duration_s=duration_s,
        slope_percent_per_minute=middle,
        slope_ci=(low, high),
        confidence=CONFIDENCE,
        slower=low > 0 and middle * duration_s / 60 >= SLOWER_PERCENT,
        throttled=None,
        temperature_c=None,
    )

"""What is said of timed runs: percentiles, speedups, and what plots need."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitedge.core.errors import InputError
from vitedge.core.measurements import Distribution, Percentiles, Timing
from vitedge.measure.statistics import ratio_of_medians

P90_RUNS, P99_RUNS = 64, 662
"""Fewest runs a percentile is reported from: MLPerf Inference's early-stopping rule."""
POINTS = 120
"""Of a series of latencies, at most."""
DIGITS = 5
"""Of a number that is only drawn."""


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

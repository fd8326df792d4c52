"""From timed runs to what a report holds of them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from vitedge.core.measurements import Distribution, Timing
from vitedge.measure.latency.clock import Comparison, summarize

POINTS = 120
DIGITS = 5
"""Of a number that is only drawn."""


def timing(starts_s: NDArray[np.float64], rounds_ms: NDArray[np.float64]) -> Timing:
    """Summarize runs, (rounds, runs) milliseconds, whose rounds began at `starts_s`, (rounds,)."""
    found = asdict(summarize(rounds_ms))
    return Timing(**found, distribution=distribution(starts_s, rounds_ms))


def timings(timed: Comparison) -> list[Timing]:
    """Summarize each session of a comparison."""
    return [timing(*each) for each in zip(timed.starts_s, timed.rounds, strict=True)]


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

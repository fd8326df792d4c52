"""Whether a device gets slower while it works: a trend, and how sure it is."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from vitedge.core.measurements import Drift
from vitedge.measure.statistics import students_t

SHORTEST_S = 10.0
"""Of a run that a trend is looked for in."""
SEGMENTS = 30
CONFIDENCE = 0.95
SLOWER_PERCENT = 3.0
"""Lost over the whole run, from which a drift is worth saying."""


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
    if duration_s < SHORTEST_S or rounds < 10:
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

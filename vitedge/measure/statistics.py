"""Confidence intervals for the two claims a report makes: accuracy lost and speed gained.

A gate that acts on bare numbers fails on noise; one that acts on these does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import exp, inf, lgamma, log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError

RESAMPLES = 1000
FARTHEST = 300.0
"""Logarithm of the widest margin of a ratio: so wide, it says nothing, and exp() still has it."""
BINS = 1024
"""Resolution of a resampled median: exact up to 1024 samples, 0.1% of them beyond."""


def discordant(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """How many images, (n,), only the first model has right, and how many only the second."""
    return int((first & ~second).sum()), int((~first & second).sum())


def drop_pp(lost: int, gained: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a difference of paired proportions, percentage points, from its discordant pairs.

    The exact (Garwood) Poisson limits of both counts, put together by squaring and adding
    (MOVER: Zou & Donner, Statistics in Medicine 27, 2008). With no discordant pair the limits
    are ± -ln((1 - confidence)/2)/n, the rule of three. One-sided it holds its level down to no
    discordant pair, where the score interval (Tango 1998) is wrong in 9% of cases instead of 5.

    Args:
        lost: pairs of which only the first is right.
        gained: pairs of which only the second is right.
        n: all pairs.
        confidence: two-sided; each limit alone is a one-sided (1 + confidence)/2 bound.

    Raises:
        InputError: no pairs.
    """
    if n == 0:
        raise InputError("no images to compare accuracy on", fix="give at least one image")
    tail = (1 - confidence) / 2
    low_lost, high_lost = _poisson_limits(lost, tail)
    low_gained, high_gained = _poisson_limits(gained, tail)
    down = sqrt((lost - low_lost) ** 2 + (high_gained - gained) ** 2)
    up = sqrt((high_lost - lost) ** 2 + (gained - low_gained) ** 2)
    drop = lost - gained
    return 100 * max(-1.0, (drop - down) / n), 100 * min(1.0, (drop + up) / n)


def _poisson_limits(count: int, tail: float) -> tuple[float, float]:
    """Means that a count of `count` or more, and of as many or fewer, has a chance `tail` of."""
    return _poisson_mean(count - 1, 1 - tail) if count else 0.0, _poisson_mean(count, tail)


@lru_cache(maxsize=4096)
def _poisson_mean(most: int, chance: float) -> float:
    """The mean of which `most` or fewer has the chance given, to 1e-9 of itself."""
    width = 20 * sqrt(most + 1)  # beyond, chances are below 1e-50
    counts = np.arange(max(0, most - int(2 * width)), most + 1)
    log_factorials = np.array([lgamma(count + 1) for count in counts.tolist()])
    low, high = max(0.0, most - width), most + width
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        probability = np.exp(counts * log(middle) - middle - log_factorials).sum()
        low, high = (middle, high) if probability > chance else (low, middle)
    return high


def resampled_drop_pp(
    fp32: NDArray[Any],
    artifact: NDArray[Any],
    metric: Callable[[NDArray[Any]], NDArray[Any]],
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Bound the drop of a metric of sums over images, percentage points; None below 10 images.

    Images are resampled whole and for both models alike, for metrics such as mIoU that are no mean
    over images: a studentised bootstrap of the jackknife's pseudo-values (Efron & Tibshirani 1993,
    ch. 12), because a few bad images skew a drop, and percentiles then pass twice too often.
    Resampling shows nothing of what too few images show, so where fewer than 10 differ the limits
    are those of as many images gone wholly wrong, or right; of more where an image pulls the
    metric by more than its share, as the only one of a class does in mIoU.

    Args:
        fp32: (n, …) what each image adds to FP32's sums.
        artifact: the same for the artifact, in the same order.
        metric: sums (resamples, …) -> the metric (resamples,), 0-1.
        confidence: two-sided.
    """
    n = len(fp32)
    if n < 10:
        return None
    totals = [part.sum(axis=0, dtype=np.float64) for part in (fp32, artifact)]
    drop = float(metric(totals[0]) - metric(totals[1]))
    without = metric(totals[0] - fp32) - metric(totals[1] - artifact)  # each image left out once
    differ = (fp32 != artifact).reshape(n, -1).any(axis=1)
    return pseudo_values_drop_pp(drop, without, int(differ.sum()), n, confidence)


def pseudo_values_drop_pp(
    drop: float, without: NDArray[np.float64], differ: int, n: int, confidence: float
) -> tuple[float, float]:
    """Bound a drop of n images, percentage points, as `resampled_drop_pp` has it.

    Args:
        drop: of all images, 0-1.
        without: (groups,) the same with one group of images left out; groups are as large as each
            other, a single image where that is cheap.
        differ: images of which the two models make different things.
        n: all images.
        confidence: two-sided.
    """
    groups = len(without)
    if differ < 10:
        pulls = n * np.abs(without - drop)  # together they may pull where none alone does
        pull = max(1.0, float(pulls.max()), n * abs(drop) / max(differ, 1))
        low, high = drop_pp(0, differ, n, confidence)[0], drop_pp(differ, 0, n, confidence)[1]
        return max(-100.0, pull * low), min(100.0, pull * high)
    weights = np.random.default_rng(0).multinomial(groups, [1 / groups] * groups, RESAMPLES)
    weights = weights.astype(np.float64)
    values = groups * drop - (groups - 1) * without
    means = weights @ values / groups
    variances = np.maximum(
        weights @ (values - values.mean()) ** 2 / groups - (means - values.mean()) ** 2, 0
    )
    t = (means - values.mean()) / np.sqrt(np.maximum(variances / (groups - 1), 1e-30))
    below, above = np.quantile(t, [(1 - confidence) / 2, (1 + confidence) / 2])
    error = float(np.std(values, ddof=1)) / sqrt(groups)
    low, high = drop - float(above) * error, drop - float(below) * error
    return 100 * max(-1.0, low), 100 * min(1.0, high)


def ratio_of_medians(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float]:
    """Bound median(numerator) / median(denominator), all runs pooled, of an interleaved benchmark.

    Rounds are resampled whole and paired, so a machine that slows down for a round slows both
    sides. The limits are log ratio ± t(rounds - 1) · bootstrap standard error: a percentile
    bootstrap is as good from 10 rounds, but covers only 77% with 3.

    Args:
        numerator: (rounds, runs) positive.
        denominator: (rounds, runs) positive; its `runs` may differ.
        confidence: two-sided; each limit alone is a one-sided (1 + confidence)/2 bound.

    Raises:
        InputError: fewer than 3 rounds, or not the same number.
    """
    rounds = len(numerator)
    if len(denominator) != rounds or rounds < 3:
        raise InputError(
            f"a ratio needs 3 or more paired rounds, not {rounds} and {len(denominator)}",
            fix="measure for longer",
        )
    ratio = float(np.median(numerator) / np.median(denominator))
    return around(ratio, log_se_of_ratio(numerator, denominator), rounds, confidence)


def around(value: float, log_se: float, rounds: int, confidence: float) -> tuple[float, float]:
    """Bound a positive value by value · exp(± t(rounds - 1) · log_se), two-sided."""
    margin = exp(min(students_t(confidence, rounds - 1) * log_se, FARTHEST))
    return value / margin, value * margin


def log_se_of_ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> float:
    """Standard error of log(median(numerator) / median(denominator)), over paired rounds.

    By bootstrap: rounds are resampled whole. Both (rounds, runs), positive. Larger where t times
    it would fall short of the bootstrap's own 95% limits: beside another load on the same cores
    most runs are fast or slow by turns, the median jumps between the two, and without this the
    interval covers 86% of the time.
    """
    rounds = len(numerator)
    draws = _draws(rounds)
    logs = np.log(_medians(numerator, draws)) - np.log(_medians(denominator, draws))
    away = logs - log(np.median(numerator) / np.median(denominator))
    farthest = float(np.abs(np.quantile(away, [0.025, 0.975])).max())
    standard_error = float(np.std(logs)) * sqrt(rounds / (rounds - 1))
    return max(standard_error, farthest / students_t(0.95, rounds - 1))


def share_se(samples: NDArray[np.float64], share: float) -> float:
    """Standard error of the share of runs that stay under a quantile, 0-1, over rounds.

    Runs of a round are alike, and count as fewer. `samples`: (rounds, runs).
    """
    under = (samples <= np.quantile(samples, share)).mean(axis=1)
    between = float(np.std(under, ddof=1)) / sqrt(len(samples))
    return max(between, sqrt(share * (1 - share) / samples.size))


def quantile_limits(
    percentiles: Sequence[float], share: float, se: float, rounds: int, confidence: float
) -> tuple[float, float]:
    """Bound a quantile by those of the shares that are t(rounds - 1) standard errors away.

    (Woodruff, JASA 47, 1952.) The upper limit is infinite where that is more than all runs.

    Args:
        percentiles: (101,) of the runs: 0% to 100%.
        share: the quantile, 0-1.
        se: as `share_se` gives it; scaled to the lower limit's share by √(p(1 - p)), as a share
            near 1 varies less.
        rounds: it was found over.
        confidence: two-sided; each limit alone is a one-sided (1 + confidence)/2 bound.
    """
    away = students_t(confidence, rounds - 1) * se
    c = away * away / (share * (1 - share))
    half = share + c / 2
    below = (half - sqrt(half * half - share * share * (1 + c))) / (1 + c)
    grid = np.linspace(0, 1, len(percentiles))
    low = float(np.interp(below, grid, percentiles))
    return low, inf if share + away > 1 else float(np.interp(share + away, grid, percentiles))


def _draws(rounds: int) -> NDArray[np.int64]:
    """How often each resample draws each round, (resamples, rounds)."""
    picks = np.random.default_rng(0).integers(0, rounds, size=(RESAMPLES, rounds))
    picks += rounds * np.arange(RESAMPLES)[:, None]
    draws = np.bincount(picks.ravel(), minlength=RESAMPLES * rounds)
    return draws.reshape(RESAMPLES, rounds)


def _medians(samples: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median of all samples of the rounds drawn, (resamples,), from a histogram of each round."""
    rounds, runs = samples.shape
    size = samples.size
    bins = min(size, BINS)
    order = np.argsort(samples, axis=None, kind="stable")
    bin_of = np.arange(size) * bins // size  # equal shares of the sorted samples
    values = np.bincount(bin_of, samples.ravel()[order]) / np.bincount(bin_of)
    histogram = np.bincount(order // runs * bins + bin_of, minlength=rounds * bins)
    up_to = np.cumsum(histogram.reshape(rounds, bins), axis=1)
    counts = draws.astype(np.float32) @ up_to.astype(np.float32)  # (resamples, bins), cumulative
    left = np.argmax(2 * counts >= size, axis=1)
    right = np.argmax(2 * counts > size, axis=1)
    return np.asarray((values[left] + values[right]) / 2)


def students_t(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t, by Abramowitz & Stegun 26.7.5: 1% low at 2 degrees."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(np.polynomial.polynomial.polyval(1 / freedom, terms))


def share_limits(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bound the share, 0-1, of which `count` of `n` were drawn (Wilson, JASA 22, 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (count + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * sqrt(count * (n - count) / n + z * z / 4)
    return max(0.0, middle - reach), min(1.0, middle + reach)

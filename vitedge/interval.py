"""Confidence intervals for the two claims a report makes: accuracy lost and speed gained.

A gate that acts on bare numbers fails on noise; one that acts on these does not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.errors import InputError

RESAMPLES = 1000
BINS = 1024
"""Resolution of a resampled median: exact up to 1024 samples, 0.1% of them beyond."""


def paired_drop_pp(
    fp32_correct: NDArray[np.bool_], artifact_correct: NDArray[np.bool_], confidence: float = 0.95
) -> tuple[float, float]:
    """Bound the accuracy lost, FP32 minus artifact, in percentage points.

    Inverts the score test for a difference of paired proportions (Tango, Statistics in
    Medicine 17, 1998). Unlike the Wald interval it keeps its coverage when few images or
    none change sides: with no discordant pair it is ± z²/(n + z²).

    Args:
        fp32_correct: (n,) whether FP32 was right on each image.
        artifact_correct: (n,) the same for the artifact, in the same order.
        confidence: two-sided; each limit alone is a one-sided (1 + confidence)/2 bound.

    Raises:
        InputError: no images, or not the same number.
    """
    if fp32_correct.shape != artifact_correct.shape or fp32_correct.ndim != 1:
        raise InputError(
            f"paired accuracies differ in shape: {fp32_correct.shape}, {artifact_correct.shape}",
            fix="score both models on the same images",
        )
    n = len(fp32_correct)
    if n == 0:
        raise InputError("no images to compare accuracy on", fix="give at least one image")
    lost = int(np.count_nonzero(fp32_correct & ~artifact_correct))
    gained = int(np.count_nonzero(~fp32_correct & artifact_correct))
    z = _z(confidence)
    return -100 * _score_upper(gained, lost, n, z), 100 * _score_upper(lost, gained, n, z)


def _score_upper(b: int, c: int, n: int, z: float) -> float:
    """Largest difference of proportions that the score test on (b - c)/n does not reject."""

    def accepted(delta: float) -> bool:
        # q: the maximum-likelihood probability of a pair that counts in c, given delta.
        p = (2 * n - b + c) * delta - b - c
        q = (sqrt(max(0.0, p * p + 8 * n * c * delta * (1 - delta))) - p) / (4 * n)
        variance = max(0.0, n * (2 * q + delta * (1 - delta)))
        return n * delta - (b - c) <= z * sqrt(variance)

    low, high = (b - c) / n, 1.0
    for _ in range(50):  # bisection: the statistic falls with delta, so it crosses once
        middle = (low + high) / 2
        low, high = (middle, high) if accepted(middle) else (low, middle)
    return high


def resampled_drop_pp(
    fp32: NDArray[Any],
    artifact: NDArray[Any],
    metric: Callable[[NDArray[Any]], NDArray[Any]],
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Bound the drop of a metric of sums over images, percentage points; None below 10 images.

    Images are resampled whole and for both models alike (percentile bootstrap), for metrics such
    as mIoU that are no mean over images.

    Args:
        fp32: (n, …) what each image adds to FP32's sums.
        artifact: the same for the artifact, in the same order.
        metric: sums (resamples, …) -> the metric (resamples,), 0-1.
        confidence: two-sided.
    """
    n = len(fp32)
    if n < 10:
        return None
    weights = np.random.default_rng(0).multinomial(n, [1 / n] * n, RESAMPLES).astype(np.float64)
    totals = [np.tensordot(weights, part.astype(np.float64), 1) for part in (fp32, artifact)]
    drops = 100 * (metric(totals[0]) - metric(totals[1]))
    low, high = np.quantile(drops, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


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
    picks = np.random.default_rng(0).integers(0, rounds, size=(RESAMPLES, rounds))
    picks += rounds * np.arange(RESAMPLES)[:, None]
    draws = np.bincount(picks.ravel(), minlength=RESAMPLES * rounds)
    draws = draws.reshape(RESAMPLES, rounds)  # how often each round was drawn
    log_ratios = np.log(_medians(numerator, draws)) - np.log(_medians(denominator, draws))
    standard_error = float(np.std(log_ratios)) * sqrt(rounds / (rounds - 1))
    margin = exp(students_t(confidence, rounds - 1) * standard_error)
    ratio = float(np.median(numerator) / np.median(denominator))
    return ratio / margin, ratio * margin


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


def _z(confidence: float) -> float:
    """Two-sided normal quantile."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def students_t(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t, by Abramowitz & Stegun 26.7.5: 1% low at 2 degrees."""
    z = _z(confidence)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(np.polynomial.polynomial.polyval(1 / freedom, terms))

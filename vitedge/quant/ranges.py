"""Where to clip an activation: four estimators, all symmetric around zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitedge.core.spec import Estimator, Floats
from vitedge.quant import e4m3
from vitedge.quant.statistics import Array, MagnitudeHistogram

QMAX = 127
_SMALLEST = 1e-20
ONE_SIDED = 0.75
"""Of the longer side of zero, the shorter at most, for a zero point that a convolution reads. It
gains 1.2 dB there; nearer to even it gains less, and rounding it moves all pixels of an image
alike, which costs a patch embedding 5 dB."""
FP16_SMALLEST, FP16_LARGEST = 2.0**-24, 65504.0
_CLIPS = np.geomspace(0.05, 1.0, 97)
"""Candidates, as a share of the largest magnitude."""
_PERCENTILE = 99.99
_LINEAR_BINS = 2048
_KL_LEVELS = 128


@dataclass(frozen=True)
class Reach:
    """How far below and above zero the numbers stored of an activation have to reach."""

    low: float
    high: float
    levels: int
    """Steps from the least to the largest."""
    fp8: bool = False
    """Whether they are E4M3's, whose distances grow with them; a step is what 1 stands for."""

    def steps(self, clips: Array) -> Array:
        """The quantization step where magnitudes above `clips` are clipped."""
        return (np.minimum(self.low, clips) + np.minimum(self.high, clips)) / self.levels

    def noise(self, clips: Array, magnitudes: Array) -> Array:
        """Mean squared error of rounding each of `magnitudes`, (clips, magnitudes) or (clips, 1).

        That is a twelfth of the squared distance between the numbers around it.
        """
        widths = self.steps(clips)[:, None]
        if self.fp8:
            widths = widths * e4m3.spacing(magnitudes / widths)
        return np.asarray(widths**2 / 12)


def fp8_reach(histogram: MagnitudeHistogram) -> Reach:
    """From the least E4M3 number to the largest."""
    return Reach(histogram.amax, histogram.amax, 2 * int(e4m3.LARGEST), fp8=True)


def reach(histogram: MagnitudeHistogram, *, unsigned: bool, affine: bool) -> Reach:
    """The whole range where it has no negative value to hold or any zero point (`affine`).

    Else as far below zero as above.
    """
    if unsigned and (affine or not histogram.low):
        return Reach(histogram.low, histogram.high, 2 * QMAX + 1)
    return Reach(histogram.amax, histogram.amax, 2 * QMAX)


def quantization_range(
    histogram: MagnitudeHistogram, estimator: Estimator, reached: Reach
) -> tuple[float, float]:
    """The quantization step, and how far below zero it is taken, by the estimator's clip."""
    clip = ESTIMATORS[estimator](histogram, reached) if histogram.amax > 0 else 0.0
    step = float(reached.steps(np.array(max(clip, _SMALLEST))))
    return max(step, _SMALLEST / reached.levels), min(reached.low, clip)


def one_sided(histogram: MagnitudeHistogram) -> bool:
    """Whether it reaches much further on one side of zero than on the other."""
    shorter, longer = sorted((histogram.low, histogram.high))
    return shorter <= ONE_SIDED * longer


def stored_scale(scale: NDArray[np.float32], floats: Floats) -> NDArray[np.float32]:
    """`scale` as a graph that computes in `floats` stores it: positive and finite."""
    if floats == "fp32":
        return scale
    return np.clip(scale, FP16_SMALLEST, FP16_LARGEST).astype(np.float16).astype(np.float32)


def _minmax(histogram: MagnitudeHistogram, reached: Reach) -> float:
    return histogram.amax


def _percentile(histogram: MagnitudeHistogram, reached: Reach) -> float:
    """The magnitude that 99.99% of all values do not exceed."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    return float(histogram.magnitudes[int(np.searchsorted(below, _PERCENTILE / 100))])


def _mse(histogram: MagnitudeHistogram, reached: Reach) -> float:
    """The clip c that minimises Σ (|x| − c)² over |x| > c plus the rounding of what is below it."""
    clips = histogram.amax * _CLIPS
    excess = np.maximum(histogram.magnitudes - clips[:, None], 0.0)
    noise = reached.noise(clips, histogram.magnitudes)
    error = np.where(excess > 0, excess**2, np.minimum(noise, histogram.magnitudes**2))
    return float(clips[int((error * histogram.counts).sum(axis=1).argmin())])


def _entropy(histogram: MagnitudeHistogram, reached: Reach) -> float:
    """The clip of least KL divergence between the clipped distribution and its 128 levels.

    Migacz 2017 (8-bit inference with TensorRT), over 2,048 linear bins.
    """
    linear = _linear(histogram)
    clips = np.arange(_KL_LEVELS, _LINEAR_BINS + 1, 16)
    divergences = [_divergence(linear, int(clip)) for clip in clips]
    return histogram.amax * float(clips[int(np.argmin(divergences))]) / _LINEAR_BINS


def _linear(histogram: MagnitudeHistogram) -> Array:
    """Counts over equal bins of [0, amax]: each bin of `histogram` spread over those it covers."""
    edges = np.concatenate([[0.0], np.sqrt(histogram.magnitudes[1:] * histogram.magnitudes[:-1])])
    edges = np.append(edges, histogram.amax)
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    linear_edges = np.linspace(0.0, histogram.amax, _LINEAR_BINS + 1)
    return np.asarray(np.diff(np.interp(linear_edges, edges, below)))


def _divergence(histogram: Array, clip: int) -> float:
    reference = histogram[:clip].copy()
    present = reference > 0
    level = np.arange(clip) * _KL_LEVELS // clip
    mass = np.bincount(level, reference, _KL_LEVELS)
    filled = np.bincount(level, present, _KL_LEVELS)
    reference[-1] += histogram[clip:].sum()
    quantized = np.where(present, (mass / np.maximum(filled, 1))[level], 0.0)
    p, q = reference / reference.sum(), quantized / max(float(quantized.sum()), 1e-30)
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


ESTIMATORS: Mapping[Estimator, Callable[[MagnitudeHistogram, Reach], float]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}

"""Symmetric INT8 ranges: from streamed activations, and from weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitedge.host import usable_cores

Estimator = Literal["minmax", "mse"]

QMAX = 127
PAIR_SUM_MAX = 128  # 255 · 128 ≤ 32,767: two products of one sign stay within 16 bits
_BINS = 2048
_MSE_CLIPS = np.linspace(0.4, 1.0, 61)
_MSE_WEIGHT_CLIPS = np.linspace(0.7, 1.0, 7)


class ActivationRange:
    """The distribution of |x| of one tensor, in memory that does not grow with images.

    A histogram of 2,048 bins over [0, limit]; when a larger value comes, limit doubles and
    neighbouring bins merge.
    """

    def __init__(self) -> None:
        self.amax = 0.0
        self.non_negative = True
        self._limit = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def update(self, values: NDArray[np.float32]) -> None:
        """Add the values of one run, any shape."""
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        amax = max(-low, high)
        if not np.isfinite(amax):
            raise FloatingPointError
        self.amax = max(self.amax, amax)
        self.non_negative &= low >= 0.0
        if amax == 0.0:
            self._counts[0] += flat.size
            return
        if self._limit == 0.0:
            self._limit = amax
        while self._limit < amax:
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([merged, np.zeros_like(merged)])
            self._limit *= 2
        scaled = np.abs(flat)
        scaled *= (_BINS - 1) / self._limit
        self._counts += np.bincount(scaled.astype(np.int32), minlength=_BINS)

    def scale(self, estimator: Estimator, levels: int) -> float:
        """The quantization step, so that `levels` steps reach from 0 to the chosen clip.

        `mse` picks the clip c that minimises Σ (|x| − c)² over |x| > c plus the rounding
        noise s²/12 of everything below it.
        """
        clip = self.amax
        if estimator == "mse" and self.amax > 0.0:
            centres = (np.arange(_BINS) + 0.5) * self._limit / (_BINS - 1)
            clips = self.amax * _MSE_CLIPS
            excess = np.maximum(centres[None, :] - clips[:, None], 0.0)
            clipped = excess > 0
            noise = (clips[:, None] / levels) ** 2 / 12
            error = (np.where(clipped, excess**2, noise) * self._counts).sum(axis=1)
            clip = float(clips[int(error.argmin())])
        return max(clip, 1e-6) / levels


def quantize_weight(
    weight: NDArray[np.float32],
    axis: int,
    estimator: Estimator,
    *,
    qmax: int = QMAX,
    pair_safe: bool = False,
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize to INT8 with one symmetric scale for each index of `axis`, the output channel.

    Returns the integers, shaped as `weight`, and the scales, (channels,) float32. With
    `pair_safe`, no two neighbours along the first reduced axis have integers of one sign whose
    sum exceeds 128: x86 CPUs without VNNI add two u8×s8 products in 16 bits and saturate.
    """
    columns = np.moveaxis(weight, axis, -1).reshape(-1, weight.shape[axis])  # (K, channels)
    amax = np.maximum(np.abs(columns).max(axis=0), 1e-8)
    limit = amax
    if pair_safe:
        limit = np.maximum(amax, _pair_sums(columns).max(axis=0) * (qmax / PAIR_SUM_MAX))
    clips = _MSE_WEIGHT_CLIPS if estimator == "mse" else np.ones(1)

    def attempt(clip: float) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        scale = (limit * clip / qmax).astype(np.float32)
        integers = np.clip(np.rint(columns / scale), -qmax, qmax)
        if pair_safe:
            _shrink_pairs(integers)
        difference = integers * scale
        difference -= columns
        error = np.einsum("kc,kc->c", difference, difference)
        return integers.astype(np.int8), scale, error

    with ThreadPoolExecutor(usable_cores()) as pool:  # NumPy lets go of the lock in each step
        attempts = list(pool.map(attempt, clips))
    chosen = np.argmin([error for _, _, error in attempts], axis=0)  # (channels,)
    best, scales = attempts[0][0], attempts[0][1]
    for index, (integers, scale, _) in enumerate(attempts[1:], start=1):
        better = chosen == index
        best[:, better], scales[better] = integers[:, better], scale[better]
    moved = best.reshape(*np.moveaxis(weight, axis, -1).shape)
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis)), scales


def _pair_sums(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """|a| + |b| of neighbouring rows (2k, 2k+1) where both have one sign, else 0: (K//2, C)."""
    rows = len(columns) // 2 * 2
    first, second = columns[0:rows:2], columns[1:rows:2]
    if rows == 0:
        return np.zeros((1, columns.shape[1]), np.float32)
    same_sign: NDArray[np.float32] = np.where(first * second > 0, np.abs(first + second), 0)
    return same_sign


def _shrink_pairs(integers: NDArray[np.float32]) -> None:
    """Pull neighbours that sum above PAIR_SUM_MAX together below it, in place."""
    rows = len(integers) // 2 * 2
    first, second = integers[0:rows:2], integers[1:rows:2]
    excess = np.abs(first + second) - PAIR_SUM_MAX  # positive only where both have one sign
    over = excess > 0
    half = np.floor(excess[over] / 2)
    first[over] -= np.sign(first[over]) * half
    second[over] -= np.sign(second[over]) * (excess[over] - half)

"""Weights to symmetric INT8 or FP8, a scale for each output channel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.machine import usable_cores
from vitedge.core.spec import Floats, WeightEstimator
from vitedge.quant import e4m3
from vitedge.quant.ranges import QMAX, stored_scale

PAIR_SUM_MAX = 128  # 255 · 128 ≤ 32,767: two products of one sign stay within 16 bits
_MSE_CLIPS = np.linspace(1.0, 0.7, 7)
_SMALLEST = np.float32(1e-20)  # with an activation's, a product that float32 still holds
_BLOCK = 128
"""Channels at a time: what one thread works on stays in its cache."""

Array = NDArray[np.float32]


def quantize_weight(
    weight: Array,
    axis: int,
    estimator: WeightEstimator,
    *,
    qmax: int = QMAX,
    pair_safe: bool = False,
    floats: Floats = "fp32",
    fp8: bool = False,
) -> tuple[NDArray[Any], Array]:
    """Quantize to INT8 with one symmetric scale for each index of `axis`, the output channel.

    To E4M3 with `fp8`. Returns the integers (or E4M3 numbers), shaped as `weight`, and the scales,
    (channels,) float32, which can be stored as `floats`. With `pair_safe`, no two neighbours along
    the first reduced axis have integers of one sign whose sum exceeds 128: x86 CPUs without VNNI
    add two u8×s8 products in 16 bits and saturate.
    """
    moved = np.moveaxis(weight, axis, -1)
    columns = moved.reshape(-1, weight.shape[axis])  # (K, channels)
    integers = np.empty(columns.shape, e4m3.DTYPE if fp8 else np.int8)
    scales = np.empty(columns.shape[1], np.float32)
    clips = _MSE_CLIPS if estimator == "mse" else np.ones(1)

    def block(start: int) -> None:
        part = slice(start, start + _BLOCK)
        values = np.ascontiguousarray(columns[:, part])
        integers[:, part], scales[part] = _quantize_block(
            values, clips, qmax, pair_safe, floats, fp8
        )

    with ThreadPoolExecutor(usable_cores()) as pool:  # NumPy lets go of the lock in each step
        list(pool.map(block, range(0, columns.shape[1], _BLOCK)))
    return np.ascontiguousarray(np.moveaxis(integers.reshape(moved.shape), -1, axis)), scales


def to_integers(
    weight: Array, scales: Array, axis: int, qmax: int, pair_safe: bool
) -> NDArray[np.int8]:
    """Quantize to INT8 with given scales, (channels,), bounded as `quantize_weight` says."""
    moved = np.moveaxis(weight, axis, -1)
    rounded = np.clip(np.rint(moved / scales), -qmax, qmax)
    if pair_safe:
        rounded = np.ascontiguousarray(rounded)
        _shrink_pairs(rounded.reshape(-1, len(scales)))
    return np.ascontiguousarray(np.moveaxis(rounded, -1, axis).astype(np.int8))


def _quantize_block(
    columns: Array,
    clips: NDArray[np.float64],
    qmax: int,
    pair_safe: bool,
    floats: Floats,
    fp8: bool,
) -> tuple[NDArray[Any], Array]:
    """Of every clip, the one with the least squared error in each column."""
    limit = np.maximum(np.abs(columns).max(axis=0), _SMALLEST)
    if pair_safe:
        # |a| + |b| of neighbouring rows (2k, 2k+1) where both have one sign, else less
        rows = len(columns) // 2 * 2
        sums = np.abs(columns[0:rows:2] + columns[1:rows:2]).max(axis=0, initial=0.0)
        limit = np.maximum(limit, sums * (qmax / PAIR_SUM_MAX))
    best = np.empty(columns.shape, e4m3.DTYPE if fp8 else np.int8)
    scales = np.empty_like(limit)
    least = np.full(limit.shape, np.inf)
    for clip in clips:
        scale = stored_scale((limit * clip / qmax).astype(np.float32), floats)
        rounded = columns / scale
        if fp8:
            rounded = e4m3.rounded(rounded)
        else:
            np.rint(rounded, out=rounded)
            np.clip(rounded, -qmax, qmax, out=rounded)
        if pair_safe:
            _shrink_pairs(rounded)
        difference = rounded * scale
        difference -= columns
        error = np.einsum("kc,kc->c", difference, difference)
        better = error < least
        least[better], scales[better] = error[better], scale[better]
        np.copyto(best, rounded, casting="unsafe", where=better)
    return best, scales


def _shrink_pairs(integers: Array) -> None:
    """Pull neighbours that sum above PAIR_SUM_MAX together below it, in place."""
    rows = len(integers) // 2 * 2
    excess = np.abs(integers[0:rows:2] + integers[1:rows:2]) - PAIR_SUM_MAX
    pair, column = np.nonzero(excess > 0)  # few: only where both have one sign
    over = excess[pair, column]
    sign = np.sign(integers[2 * pair, column])
    half = np.floor(over / 2)
    integers[2 * pair, column] -= sign * half
    integers[2 * pair + 1, column] -= sign * (over - half)

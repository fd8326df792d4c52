"""Weights to integers, or to FP8, so that their rounding errors cancel in what a layer gives.

The nearest plane (Babai 1986): every weight is rounded to make up for the errors of those rounded
before it, as far as their inputs go together. GPTQ (Frantar 2023) does the same from the other end,
through the inverse of the moments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.quant import e4m3
from vitedge.quant.weights import PAIR_SUM_MAX

Array = NDArray[np.float32]

DAMPING = 0.01
"""Added to each moment, of their mean: what keeps to the calibration images is no better."""
_BLOCK = 128


def round_to_plane(
    columns: Array,
    scales: Array,
    moments: Array,
    qmax: int,
    *,
    pair_safe: bool = False,
    fp8: bool = False,
    damping: float = DAMPING,
) -> NDArray[Any]:
    """Integers for `columns` (groups, inputs, channels) with `scales` (groups, channels).

    E4M3 numbers with `fp8`.

    `moments` (groups, inputs, inputs) are Σ x xᵀ over the rows that the columns multiply. The
    squared error of the products over these rows is what is made small.
    """
    inputs = columns.shape[1]
    energy = np.einsum("gkk->gk", moments).sum(axis=0)
    order = np.argsort(energy, kind="stable")  # those that matter most are rounded first: the last
    upper = _factor(moments[:, order][:, :, order], damping)
    weights = columns[:, order]
    neighbours = _neighbours(order) if pair_safe else np.full(inputs, -1)
    integers, errors = (np.zeros(weights.shape, np.float32) for _ in range(2))
    for end in range(inputs, 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        beyond = upper[:, start:end, end:] @ errors[:, end:]
        for k in range(end - 1, start - 1, -1):
            within = (upper[:, k, None, k + 1 : end] @ errors[:, k + 1 : end])[:, 0]
            shift = (beyond[:, k - start] + within) / upper[:, k, k, None]
            steps = (weights[:, k] + shift) / scales
            rounded = e4m3.rounded(steps) if fp8 else np.clip(np.rint(steps), -qmax, qmax)
            if neighbours[k] > k:
                other = integers[:, neighbours[k]]
                rounded = np.clip(rounded, -PAIR_SUM_MAX - other, PAIR_SUM_MAX - other)
            integers[:, k] = rounded
            errors[:, k] = weights[:, k] - rounded * scales
    result = np.empty(weights.shape, e4m3.DTYPE if fp8 else np.int8)
    result[:, order] = integers
    return result


def _neighbours(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in `order` the neighbour (2k, 2k + 1) of each input stands; -1 where it has none."""
    places = np.append(np.argsort(order), -1)
    neighbours: NDArray[np.int64] = places[np.minimum(order ^ 1, len(order))]
    return neighbours


def _factor(moments: Array, damping: float) -> Array:
    """R, upper triangular, with Rᵀ R the moments and their damping."""
    damped = moments.copy()
    inputs = damped.shape[1]
    diagonal = np.einsum("gkk->gk", damped)  # a view
    mean = diagonal.mean(axis=1, keepdims=True)
    mean[mean == 0] = 1
    while True:
        diagonal += damping * mean
        try:
            factor: Array = np.linalg.cholesky(damped).transpose(0, 2, 1)
            return factor
        except np.linalg.LinAlgError:  # float32 cannot tell: more of the mean can
            if damping > inputs:
                raise
            damping *= 10

"""How a row of pixels is sampled between its own, where Pillow's filters are not a library's."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Taps: TypeAlias = tuple[NDArray[np.intp], NDArray[np.float64]]
"""Which pixels of a row a new one is made of, (new, taps), and their weights."""


def linear(positions: NDArray[np.float64], old: int) -> Taps:
    """Two pixels around each position; those at the edge go on beyond it."""
    start = np.floor(positions).astype(np.intp)
    share = positions - start
    indices = np.stack([start, start + 1], axis=1).clip(0, old - 1)
    return indices, np.stack([1 - share, share], axis=1)


def cubic(positions: NDArray[np.float64], old: int) -> Taps:
    """Four, as torch does (a = -0.75)."""
    start = np.floor(positions).astype(np.intp)
    indices = start[:, None] + np.arange(-1, 3)
    x = np.abs(positions[:, None] - indices)
    near = (1.25 * x - 2.25) * x * x + 1
    far = -0.75 * (((x - 5) * x + 8) * x - 4)
    return indices.clip(0, old - 1), np.where(x <= 1, near, far)


def blurred(positions: NDArray[np.float64], old: int, shrunk: float) -> Taps:
    """Two, of a row under a Gaussian as wide as it shrinks, mirrored at its ends (scikit-image)."""
    sigma = max(0.0, (shrunk - 1) / 2)
    radius = int(4 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    gaussian = np.exp(-0.5 * (steps / sigma) ** 2) if sigma else np.ones(1)
    gaussian /= gaussian.sum()
    start = np.floor(positions).astype(np.intp)
    share = (positions - start)[:, None]
    indices = start[:, None] + np.arange(-radius, radius + 2)
    weights = (1 - share) * np.append(gaussian, 0) + share * np.insert(gaussian, 0, 0)
    indices = np.abs(indices) % max(2 * (old - 1), 1)
    return np.minimum(indices, 2 * (old - 1) - indices).clip(0), weights


def gather(pixels: NDArray[Any], axis: int, taps: Taps) -> NDArray[np.float32]:
    """`pixels`, (H, W) or (H, W, C), of another size along `axis`; unrounded."""
    shape = [1] * pixels.ndim
    shape[axis] = -1
    total: Any = 0
    for indices, weights in zip(taps[0].T, taps[1].T, strict=True):
        total = total + np.take(pixels, indices, axis) * weights.astype(np.float32).reshape(shape)
    result: NDArray[np.float32] = total
    return result

"""How close outputs are and must be, and batches filled up: one formula and limit for everyone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXPORT_PARITY = 1e-3
"""Largest relative error of an exported graph against its source, and of an FP32 bundle against
the exported graph: one computation on two runtimes."""
REWRITE_PARITY = 1e-4
"""Largest relative error of a rewritten graph against the original, on one runtime."""

_SILENCE = 1e-30
"""What a division by zero is a division by."""


def sqnr_db(signal: float, noise: float) -> float | None:
    """Signal to quantization noise of two powers (sums of squares), dB: 10·log10(signal / noise).

    None where there is no noise or no signal, or either is NaN or infinite.
    """
    if not (0 < signal < math.inf and 0 < noise < math.inf):
        return None
    return decibels(signal / noise)


def decibels(ratio: float) -> float:
    """10·log10 of a ratio of powers; -inf of 0."""
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def noise_db(ratio: float) -> float:
    """Noise power over signal power in decibels, of no noise, too."""
    return decibels(max(ratio, 1e-30))


def cosines(want: NDArray[np.float64], got: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosines (…) of the vectors in `want` and `got`, both (…, d); 0 where one is all zeros."""
    norms = np.sqrt((want * want).sum(-1) * (got * got).sum(-1))
    return np.asarray((want * got).sum(-1) / np.maximum(norms, _SILENCE))


def by_position(output: NDArray[Any]) -> NDArray[Any]:
    """An output as (n, positions, channels).

    Its positions are tokens, of (n, N, C), or pixels, of (n, C, h, w); any other has one.
    """
    if output.ndim == 3:
        return output
    if output.ndim == 4:
        return np.moveaxis(output, 1, -1).reshape(len(output), -1, output.shape[1])
    return output.reshape(len(output), 1, -1)


def as_maps(output: NDArray[Any]) -> NDArray[Any]:
    """Dense maps as (n, C, h, w): they may be (n, h, w)."""
    return output[:, None] if output.ndim == 3 else output


def absolute_error(want: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest |got - want|; NaN where either has one, 0 where both are empty."""
    return _peak(got - want)


def relative_error(want: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest |got - want|, relative to the largest |want|; NaN where either has one."""
    return absolute_error(want, got) / max(_peak(want), _SILENCE)


def _peak(values: NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0.0))


def fill_batch(images: NDArray[Any], size: int) -> NDArray[Any]:
    """`images` (n, …) and the last one again, up to a multiple of `size`; cut the outputs at n."""
    short = -len(images) % size
    return np.concatenate([images, np.repeat(images[-1:], short, axis=0)]) if short else images

"""What the values of an activation look like, channel by channel, in memory that does not grow.

Channels can be rescaled afterwards, so that one pass over the images serves every recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BINS = 256
_BINS_PER_OCTAVE = 16
_MANTISSA_SHIFT = 19  # of float32's 23 bits: 4 are kept, so that a bin is 1/16 of an octave
_INFINITY = 0x7F800000
_HEADROOM = 2 * _BINS_PER_OCTAVE
_SMALLEST = 1 << _MANTISSA_SHIFT


@dataclass(frozen=True)
class MagnitudeHistogram:
    """|x| of a whole tensor: how often each magnitude occurs, and how far it reaches, exactly."""

    magnitudes: Array
    """Ascending, (bins,)."""
    counts: Array
    low: float
    """How far it reaches below zero; 0 where it never does."""
    high: float
    """And above."""

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return max(self.low, self.high)


class ChannelStatistics:
    """A histogram of |x| for each channel, its bins 1/16 of an octave wide, over 16 octaves.

    A bin is float32's exponent and four bits of its mantissa. Each channel's range starts where
    its own first values are, so that one a million times larger hides nothing. What is smaller
    than its lowest bin counts as that bin.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((0, _BINS), np.int64)
        self._base = np.zeros(0, np.int32)
        self._largest = np.zeros(0, np.int32)
        self._lowest = np.zeros(0, np.float32)
        self._highest = np.zeros(0, np.float32)

    def update(self, values: NDArray[np.float32]) -> None:
        """Add the values of one run, (n, channels).

        Raises FloatingPointError when one is NaN or infinite.
        """
        bits = np.ascontiguousarray(values, np.float32).view(np.int32)
        bits = bits & 0x7FFFFFFF  # |x|: floats without a sign are ordered as integers are
        largest = bits.max(axis=0)
        if int(largest.max()) >= _INFINITY:
            raise FloatingPointError
        if not self._base.size:
            self._base = np.maximum(largest, _SMALLEST) >> _MANTISSA_SHIFT
            self._base -= _BINS - 1 - _HEADROOM
            self._largest = np.zeros_like(largest)
            self._lowest = np.zeros(len(largest), np.float32)
            self._highest = np.zeros(len(largest), np.float32)
            self._counts = np.zeros((len(largest), _BINS), np.int64)
        self._largest = np.maximum(self._largest, largest)
        self._lowest = np.minimum(self._lowest, values.min(axis=0))
        self._highest = np.maximum(self._highest, values.max(axis=0))
        self._make_room(largest)
        bits >>= _MANTISSA_SHIFT
        bits -= self._base
        np.clip(bits, 0, _BINS - 1, out=bits)
        bits += np.arange(0, self._counts.size, _BINS, dtype=np.int32)
        counts = np.bincount(bits.reshape(-1), minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)

    def _make_room(self, largest: NDArray[np.int32]) -> None:
        """Move the bins of channels up where a value lies above the highest."""
        beyond = (largest >> _MANTISSA_SHIFT) - self._base - (_BINS - 1)
        for channel in np.flatnonzero(beyond > 0):
            shift = min(int(beyond[channel]) + _HEADROOM, _BINS)
            counts = self._counts[channel]
            moved = np.pad(counts[shift:], (0, shift))
            moved[0] += counts[:shift].sum()
            self._counts[channel] = moved
            self._base[channel] += int(beyond[channel]) + _HEADROOM

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it, to be kept; counts without the zeros that most of them are."""
        flat = self._counts.reshape(-1)
        places = np.flatnonzero(flat)
        extremes = {"largest": self._largest, "lowest": self._lowest, "highest": self._highest}
        return {"places": places, "counts": flat[places], "base": self._base, **extremes}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> ChannelStatistics:
        """From what `arrays` gave."""
        statistics = cls()
        for name in ("base", "largest", "lowest", "highest"):
            setattr(statistics, f"_{name}", arrays[name])
        counts = np.zeros(len(arrays["base"]) * _BINS, np.int64)
        counts[arrays["places"].astype(np.int64)] = arrays["counts"]
        statistics._counts = counts.reshape(-1, _BINS)
        return statistics

    @property
    def amax(self) -> Array:
        """The largest |x| of each channel, (channels,)."""
        return self._largest.view(np.float32).astype(np.float64)

    def distribution(self, scale: Array) -> MagnitudeHistogram:
        """The distribution of x / `scale`, (channels,) or (1,), over all channels."""
        scale = np.broadcast_to(scale, self.amax.shape)
        amax = float((self.amax / scale).max(initial=0.0))
        largest = max(amax, 1e-30)
        positions = np.log2(self._magnitudes() / scale[:, None] / largest) * _BINS_PER_OCTAVE
        index = np.clip(np.rint(positions).astype(np.int64) + _BINS - 1, 0, _BINS - 1)
        counts = np.bincount(index.reshape(-1), self._counts.reshape(-1), _BINS)
        magnitudes = largest * 2 ** (np.arange(1.0 - _BINS, 1.0) / _BINS_PER_OCTAVE)
        low, high = (float((e / scale).max(initial=0.0)) for e in (-self._lowest, self._highest))
        return MagnitudeHistogram(magnitudes, counts.astype(np.float64), low, high)

    def _magnitudes(self) -> Array:
        """The centre of each bin, (channels, bins)."""
        highest = (_INFINITY >> _MANTISSA_SHIFT) - 1
        lowest = (self._base[:, None] + np.arange(_BINS, dtype=np.int32)).clip(0, highest)
        edges = (lowest << _MANTISSA_SHIFT).astype(np.int32)
        centres: Array = (edges + (1 << (_MANTISSA_SHIFT - 1))).view(np.float32).astype(np.float64)
        return centres

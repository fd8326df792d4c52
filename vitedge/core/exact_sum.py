"""Sums that do not depend on the order of their terms, so that parts of a run add up to the whole.

As the superaccumulator of Kulisch has them: whole numbers on one grid of powers of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 32
_LOW = 2**_BITS - 1
_CACHED = 2**14
"""Terms at a time."""
_PLACES = 2**11 // _BITS + 2
"""Of any exponent, and the two above."""
_UNIT = -1023 - 52
"""Power of two that a whole number 1 at the lowest place stands for: exponents are biased by 1023,
and a mantissa has 52 bits after the first."""


class ExactSum:
    """Sums of terms ≥ 0, one sum a column; NaN where a term was not finite."""

    def __init__(self) -> None:
        self._limbs: dict[int, NDArray[np.int64]] = {}  # place -> (columns,)
        self._lost: NDArray[np.bool_] = np.zeros(0, bool)

    def add(self, terms: NDArray[np.float64]) -> None:
        """Add terms (n, columns), up to 2²⁹ in all."""
        if not len(self._lost):
            self._lost = np.zeros(terms.shape[1], bool)
        step = max(1, _CACHED // max(1, len(terms)))
        for start in range(0, terms.shape[1], step):
            self._add(terms[:, start : start + step], slice(start, start + step))

    def _add(self, terms: NDArray[np.float64], columns: slice) -> None:
        bits = np.ascontiguousarray(terms).view(np.int64)
        exponents = bits >> 52
        exponents &= 0x7FF
        lost = exponents == 0x7FF
        if lost.any():
            self._lost[columns] |= lost.any(axis=0)
        whole = bits & (2**52 - 1)
        whole |= 2**52
        whole[(exponents == 0) | lost] = 0
        shift = exponents & (_BITS - 1)
        exponents >>= 5
        low, high = (whole & _LOW) << shift, (whole >> _BITS) << shift  # below 2^63 and 2^52
        limbs = low & _LOW, (low >> _BITS) + (high & _LOW), high >> _BITS
        first, last = int(exponents.min(initial=64)), int(exponents.max(initial=0))
        for place in range(first, last + 1):
            here = exponents == place
            for offset, limb in enumerate(limbs):
                own = limb if first == last else limb * here
                self._at(place + offset)[columns] += own.sum(axis=0)

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add the sums of another part, as `arrays` gives them. Raises ValueError for others."""
        if not all(0 <= place < _PLACES for place in stored["places"].tolist()):
            raise ValueError("a sum of it is out of range")
        if not len(self._lost):
            self._lost = np.zeros(len(stored["lost"]), bool)
        self._lost |= stored["lost"]
        for place, limb in zip(stored["places"].tolist(), stored["limbs"], strict=True):
            self._at(place)[:] += limb

    def arrays(self) -> dict[str, NDArray[Any]]:
        """places (k,), limbs (k, columns) and lost (columns,)."""
        places = sorted(self._limbs)
        limbs = [self._limbs[place] for place in places]
        return {
            "places": np.array(places, np.int64),
            "limbs": np.array(limbs, np.int64).reshape(len(places), len(self._lost)),
            "lost": self._lost,
        }

    @property
    def values(self) -> NDArray[np.float64]:
        """The sums (columns,)."""
        total = np.zeros(len(self._lost))
        carry = np.zeros(len(self._lost), np.int64)
        parts = []
        for place in range(min(self._limbs, default=0), max(self._limbs, default=-1) + 3):
            whole = carry + self._limbs.get(place, 0)
            carry = whole >> _BITS
            parts.append(np.ldexp((whole & _LOW).astype(np.float64), place * _BITS + _UNIT))
        for part in reversed(parts):
            total += part
        total[self._lost] = np.nan
        return total

    def _at(self, place: int) -> NDArray[np.int64]:
        if place not in self._limbs:
            self._limbs[place] = np.zeros(len(self._lost), np.int64)
        return self._limbs[place]

"""How far a rewritten graph may be from the one it was made of: rounding in float32, no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PARITY_LIMIT = 1e-4
"""Largest relative error of a rewritten graph's output."""


def relative_error(want: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """The largest |got − want|, relative to the largest |want|; NaN where either has one."""
    return float(np.abs(got - want).max()) / max(float(np.abs(want).max()), 1e-30)

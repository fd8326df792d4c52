"""FP8 as products read it: E4M3, four bits of exponent and three of mantissa, no infinity.

Micikevicius et al. 2022, "FP8 formats for deep learning", table 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

LARGEST = 448.0
LEAST_EXPONENT, LARGEST_EXPONENT = -6, 8
"""Of normal numbers; below the least one, steps are as wide as there."""
MANTISSA_BITS = 3
DTYPE: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)


def encode(values: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """The nearest E4M3 of each of `values`, ties to even; what is beyond the largest is that."""
    encoded: NDArray[Any] = np.clip(values, -LARGEST, LARGEST).astype(DTYPE)
    return encoded


def rounded(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """`values` as E4M3 holds them."""
    return encode(values).astype(np.float32)


def spacing(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance between the E4M3 numbers around each of `magnitudes`, which are positive."""
    exponents = np.floor(np.log2(np.maximum(magnitudes, 2.0**LEAST_EXPONENT)))
    widths: NDArray[np.float64] = 2.0 ** (np.minimum(exponents, LARGEST_EXPONENT) - MANTISSA_BITS)
    return widths

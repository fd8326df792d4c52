"""Post-training quantization in one call, for tests and benchmarks that need no bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from vitedge.quant.policy import Decision
from vitedge.quant.ptq import calibrate, quantize
from vitedge.spec import Calibration, Quantization


def ptq(
    fp32: Path, batches: Iterable[NDArray[np.uint8]], recipe: Calibration, target: Quantization
) -> tuple[ModelProto, list[Decision]]:
    """The QDQ model of the ONNX file `fp32`, calibrated on `batches`."""
    images = list(batches)
    calibrated = calibrate(fp32, lambda: iter(images), recipe, target, lambda *step: None)
    return quantize(calibrated, lambda *step: None, {})

"""Post-training quantization in one call, for tests and benchmarks that need no bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from vitedge.core.manifest import Layer
from vitedge.core.spec import Calibration, Quantization
from vitedge.quant.calibrate import calibrate
from vitedge.quant.qdq import quantize


def ptq(
    fp32: Path, batches: Iterable[NDArray[np.uint8]], recipe: Calibration, target: Quantization
) -> tuple[ModelProto, list[Layer]]:
    """The QDQ model of the ONNX file `fp32`, calibrated on `batches`."""
    calibrated, _ = calibrate(fp32, iter(batches), recipe, target, lambda *step: None)
    return quantize(calibrated, lambda *step: None, {})

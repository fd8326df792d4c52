"""Where an FP32 graph breaks: NaN at its output says nothing of the layer that made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.graph.taps import tapped


def check_finite(outputs: NDArray[np.float32], fp32: Path, images: NDArray[np.uint8]) -> None:
    """Refuse `outputs` of the ONNX file `fp32` on one run's `images` where they are not finite.

    Raises InputError naming the first node that gives NaN or, without any, infinity.
    """
    if np.isfinite(outputs).all():
        return
    model = onnx.load(fp32, load_external_data=False)
    makers = {name: node.name for node in model.graph.node for name in node.output if name}
    values = dict(zip(makers, tapped(model, fp32, list(makers))(images), strict=True))
    floats = {name: value for name, value in values.items() if value.dtype.kind == "f"}
    for kind, predicate in (("NaN", np.isnan), ("infinity", np.isinf)):
        for name, value in floats.items():
            if predicate(value).any():
                raise InputError(
                    f"the FP32 model gives {kind} from {makers[name]} on (tensor '{name}')",
                    fix="check the weights and the preprocessing",
                )

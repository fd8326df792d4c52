"""What quantizing leaves of a model's output on calibration images."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from vitedge.core.matching import in_order
from vitedge.core.numerics import sqnr_db
from vitedge.graph.io import write
from vitedge.graph.run import Runner
from vitedge.quant.parameters import Calibrated
from vitedge.quant.placement import place
from vitedge.quant.qdq import quantize, rescale_biases


def quality_db(calibrated: Calibrated, model: ModelProto | None = None) -> float:
    """SQNR of the main output on the images kept; -inf if not finite.

    `model` is a QDQ model of the same weights, which is given the ranges of `calibrated`.
    """
    if model is None:
        model, _ = quantize(calibrated, lambda *step: None, {})
    graph = onnx.load(calibrated.path, load_external_data=False).graph
    placed = place(graph, calibrated, {layer.node: layer for layer in calibrated.layers})
    quantizers = {
        f"{name}.{part}": value
        for name, activation in placed.activations.items()
        for part, value in (("scale", activation.scale), ("zero", activation.stored_zero))
    }
    for tensor in model.graph.initializer:
        if tensor.name in quantizers:
            tensor.CopyFrom(numpy_helper.from_array(quantizers[tensor.name], tensor.name))
    rescale_biases(model.graph)
    path = calibrated.path.with_name("tried.onnx")
    write(model, path)
    run = Runner(path)
    signal = noise = 0.0
    for images, fp32 in zip(calibrated.images, calibrated.outputs, strict=True):
        signal += float(np.square(fp32, dtype=np.float64).sum())
        (output,) = in_order([fp32], run(images)[:1], calibrated.orders).outputs
        noise += float(np.square(output - fp32, dtype=np.float64).sum())
    for file in path.parent.glob(f"{path.name}*"):  # its data, where it is large
        file.unlink()
    level = sqnr_db(max(signal, 1e-300), max(noise, 1e-300))
    return -math.inf if level is None else level

"""What quantizing leaves of a model's output on calibration images, a detector's boxes included.

SQNR says little of boxes: where they all are, on average, is most of its signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from vitedge.core.detections import BoxLikeness, box_likeness
from vitedge.core.matching import in_order
from vitedge.core.numerics import decibels, sqnr_db
from vitedge.core.spec import Detection
from vitedge.graph.io import write
from vitedge.graph.run import Runner
from vitedge.quant.parameters import Calibrated
from vitedge.quant.placement import place
from vitedge.quant.qdq import quantize, rescale_biases

LEAST_DB = 22.0
"""What INT8 as a whole must leave: below, choices change sides."""
LEAST_IOU = 0.97
"""Mean IoU with FP32's that boxes must keep: what `LEAST_DB` is to logits."""

Outputs = Sequence[NDArray[Any]]


def quality_db(calibrated: Calibrated, model: ModelProto | None = None) -> float:
    """SQNR of the main output on the images kept, or that of boxes where they are worse.

    -inf if not finite. `model` is a QDQ model of the same weights, which is given the ranges of
    `calibrated`.
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
    fp32 = [calibrated.outputs, *([calibrated.boxes] if calibrated.detection else [])]
    reference = list(zip(*fp32, strict=True))
    outputs = [
        in_order(want, run(images)[: len(want)], calibrated.orders).outputs
        for images, want in zip(calibrated.images, reference, strict=True)
    ]
    for file in path.parent.glob(f"{path.name}*"):  # its data, where it is large
        file.unlink()
    signal = noise = 0.0
    for (want, *_), (got, *_) in zip(reference, outputs, strict=True):
        signal += float(np.square(want, dtype=np.float64).sum())
        noise += float(np.square(got - want, dtype=np.float64).sum())
    level = sqnr_db(max(signal, 1e-300), max(noise, 1e-300))
    if level is None:
        return -math.inf
    if calibrated.detection is None:
        return level
    return min(level, -decibels(max(box_noise(reference, outputs, calibrated.detection), 1e-30)))


def box_noise(reference: Sequence[Outputs], outputs: Sequence[Outputs], rule: Detection) -> float:
    """Noise of boxes over their signal, on the scale of logits; queries are in one order.

    It grows with the square of what is missing from an IoU of 1, as the power of noise does with
    that of an error, and is that of `LEAST_DB` at `LEAST_IOU`. Both are batches of logits and
    boxes.
    """
    pairs = zip(reference, outputs, strict=True)
    parts = [box_likeness(want, got, rule) for want, got in pairs]
    lost = 1 - BoxLikeness(*map(sum, zip(*parts, strict=True))).iou
    return float((lost / (1 - LEAST_IOU)) ** 2 * 10 ** (-LEAST_DB / 10))

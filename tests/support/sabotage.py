"""Ways to break an artifact that everything but its numbers hides: the bundle verifies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vitedge.core.bundle import EVIDENCE, MODEL, REPORT, Bundle, open_bundle, seal

Sabotage = Callable[[onnx.GraphProto, np.random.Generator], str]


def scale_of_one_layer(graph: onnx.GraphProto, rng: np.random.Generator) -> str:
    """The weights of one layer, half as large again by their scale."""
    names = {each.name for each in graph.initializer}
    scales = [
        node.input[1]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in names
    ]
    chosen = scales[rng.integers(len(scales))]
    _change(graph, chosen, lambda scale: scale * np.float32(1.5))
    return chosen


def logit_of_one_class(graph: onnx.GraphProto, rng: np.random.Generator) -> str:
    """One class wins more often than it should."""
    output = graph.output[0]
    shape = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
    shift = np.zeros([1, shape[1], *[1] * (len(shape) - 2)], np.float32)
    chosen = int(rng.integers(shape[1]))
    shift[0, chosen] = 5
    for node in graph.node:
        if output.name in node.output:
            node.output[list(node.output).index(output.name)] = "unshifted"
    graph.initializer.append(numpy_helper.from_array(shift, "shift"))
    graph.node.append(helper.make_node("Add", ["unshifted", "shift"], [output.name]))
    return f"class {chosen}"


def red_for_blue(graph: onnx.GraphProto, rng: np.random.Generator) -> str:
    """RGB read as BGR."""
    image = graph.input[0].name
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = "swapped"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
    graph.node.insert(0, helper.make_node("Gather", [image, "bgr"], ["swapped"], axis=3))
    return "RGB to BGR"


def no_normalisation(graph: onnx.GraphProto, rng: np.random.Generator) -> str:
    """Pixels of 0-1, as if the mean and the deviation had been forgotten."""
    _change(graph, "image.scale", lambda scale: np.full_like(scale, 1 / 255))
    _change(graph, "image.shift", np.zeros_like)
    return "0-1"


def sabotage(bundle: Path, to: Path, how: Sabotage, seed: int = 0) -> Bundle:
    """Copy a bundle of ONNX Runtime beside its FP32 one, break its graph, and seal it again."""
    shutil.copytree(bundle, to)
    for measured in (REPORT, EVIDENCE):
        (to / measured).unlink(missing_ok=True)
    model = onnx.load(to / MODEL)
    how(model.graph, np.random.default_rng(seed))
    onnx.checker.check_model(model)
    onnx.save(model, to / MODEL)
    return seal(to, open_bundle(bundle).manifest)


def _change(
    graph: onnx.GraphProto, name: str, change: Callable[[np.ndarray[Any, Any]], Any]
) -> None:
    for each in graph.initializer:
        if each.name == name:
            each.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(each)), name))
            return
    raise KeyError(name)

"""Preprocessing as part of the graph, so that no host code can get it wrong."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess

INPUT = "image"


def prepend(model: ModelProto, preprocess: Preprocess) -> None:
    """Replace the model's (B, 3, H, W) float32 input by `image`, (B, H, W, 3) uint8 RGB.

    In place; names that clash with what is added get a prefix. Adds NHWC → NCHW, RGB → BGR where
    the model wants it, and x·1/(255·std) − mean/std per channel. In that order: by rows of pixels,
    not by three channels, ONNX Runtime's arithmetic takes less than half the time. Raises
    InputError where an output is called `image`.
    """
    graph = model.graph
    if any(value.name == INPUT for value in graph.output):
        raise InputError(
            f"an output is called '{INPUT}', as the artifact's own input is",
            fix="rename it, or keep others with `model_output`",
        )
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    if any(name == INPUT or name.startswith(f"{INPUT}.") for name in names):
        compose.add_prefix_graph(graph, "model.", rename_outputs=False, inplace=True)
    old = graph.input[0]
    batch = old.type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, preprocess.height, preprocess.width, 3]
    order = [2, 1, 0] if preprocess.channels == "BGR" else [0, 1, 2]
    mean, std = np.array(preprocess.mean)[order], np.array(preprocess.std)[order]
    constants = {"image.scale": 1.0 / (255.0 * std), "image.shift": -mean / std}
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32).reshape(1, 3, 1, 1), name)
        for name, value in constants.items()
    )
    nodes = [
        helper.make_node("Cast", [INPUT], ["image.float"], "image.cast", to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["image.float"], ["image.planes"], "image.transpose", perm=[0, 3, 1, 2]
        ),
    ]
    planes = "image.planes"
    if preprocess.channels == "BGR":
        graph.initializer.append(numpy_helper.from_array(np.array(order), "image.order"))
        planes = "image.bgr"
        nodes.append(
            helper.make_node(
                "Gather", ["image.planes", "image.order"], [planes], "image.flip", axis=1
            )
        )
    nodes += [
        helper.make_node("Mul", [planes, "image.scale"], ["image.scaled"], "image.mul"),
        helper.make_node("Add", ["image.scaled", "image.shift"], [old.name], "image.add"),
        *graph.node,
    ]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))


def apply_numpy(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The same arithmetic on the host: (B, H, W, 3) uint8 -> (B, 3, H, W) float32."""
    mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
    normalised = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(normalised[:, ::-1] if preprocess.channels == "BGR" else normalised)

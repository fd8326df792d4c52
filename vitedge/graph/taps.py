"""A graph run with other outputs than its own: what any tensor inside it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from vitedge.graph.run import Runner


def tapped(
    model: ModelProto,
    fp32: Path,
    outputs: list[str],
    nodes: tuple[NodeProto, ...] = (),
    *,
    often: bool = False,
) -> Runner:
    """Run `model`, the graph of the file `fp32`, with other `outputs`, of more `nodes` too."""
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.graph.node.extend(nodes)
    del changed.graph.output[:]
    changed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    path = fp32.with_name("tapped.onnx")  # shares fp32's external data
    onnx.save(changed, path)
    run = Runner(path, often=often)
    path.unlink()
    return run


def shapes(model: ModelProto, fp32: Path, images: NDArray[Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor on `images`."""
    names = [name for node in model.graph.node for name in node.output if name]
    nodes = [helper.make_node("Shape", [name], [f"{name}/shape_of"]) for name in names]
    run = tapped(model, fp32, [node.output[0] for node in nodes], tuple(nodes))
    return {name: tuple(dims.tolist()) for name, dims in zip(names, run(images), strict=True)}

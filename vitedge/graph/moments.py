"""What a graph's activations look like, channel by channel; the runtime does the reducing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from vitedge.errors import InputError
from vitedge.graph.run import Runner

Key = tuple[str, tuple[int, ...]]
"""A tensor, and the axes to reduce."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Moments:
    """max|x| and the mean of x² over all images, 1 along the reduced axes."""

    amax: NDArray[np.float64]
    power: NDArray[np.float64]


def tapped(model: ModelProto, fp32: Path, nodes: list[NodeProto], outputs: list[str]) -> Runner:
    """Run `model`, the graph of the file `fp32`, with more `nodes` and with other `outputs`."""
    changed = ModelProto()
    changed.CopyFrom(model)
    changed.graph.node.extend(nodes)
    del changed.graph.output[:]
    changed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    path = fp32.with_name("tapped.onnx")  # shares fp32's external data
    onnx.save(changed, path)
    run = Runner(path)
    path.unlink()
    return run


def shapes(model: ModelProto, fp32: Path, images: NDArray[np.uint8]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor on `images`."""
    names = [name for node in model.graph.node for name in node.output if name]
    nodes = [helper.make_node("Shape", [name], [f"{name}/shape_of"]) for name in names]
    run = tapped(model, fp32, nodes, [node.output[0] for node in nodes])
    return {name: tuple(dims.tolist()) for name, dims in zip(names, run(images), strict=True)}


def measure(
    model: ModelProto,
    fp32: Path,
    keys: list[Key],
    sizes: Mapping[str, tuple[int, ...]],
    batches: Iterable[NDArray[np.uint8]],
    total: int,
    progress: Progress,
) -> dict[Key, Moments]:
    """The moments of every tensor in `keys`; `sizes` are the tensors' shapes.

    Raises InputError, naming the tensor, when one is NaN or infinite.
    """
    if not keys:
        return {}
    opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    nodes, outputs = [], []
    for index, (name, axes) in enumerate(keys):
        tap = f"{name}/moments_{index}"
        given: dict[str, Any] = {"axes": axes} if opset < 18 else {}
        where = [] if opset < 18 else [f"{tap}/axes"]
        nodes += [
            helper.make_node("Constant", [], [f"{tap}/axes"], value_ints=axes),
            helper.make_node("Abs", [name], [f"{tap}/abs"]),
            helper.make_node("ReduceMax", [f"{tap}/abs", *where], [f"{tap}/max"], **given),
            helper.make_node("ReduceSumSquare", [name, *where], [f"{tap}/square"], **given),
        ]
        outputs += [f"{tap}/max", f"{tap}/square"]
    run = tapped(model, fp32, nodes, outputs)
    amax: dict[Key, NDArray[np.float64]] = {}
    square: dict[Key, NDArray[np.float64]] = {}
    stream = iter(batches)
    first = next(stream)
    runs = seen = 0
    for images in chain([first], stream):
        seen += len(images)
        progress("equalizing", seen, total)
        if len(images) < len(first):
            continue  # heads may be folded into the batch axis
        runs += 1
        values = run(images)
        for key, largest, squares in zip(keys, values[0::2], values[1::2], strict=True):
            if not np.isfinite(squares).all():
                raise InputError(
                    f"activation '{key[0]}' is NaN or infinite on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                )
            amax[key] = np.maximum(amax.get(key, 0.0), largest.astype(np.float64))
            square[key] = square.get(key, 0.0) + squares.astype(np.float64)
    counts = {(name, axes): runs * prod(sizes[name][axis] for axis in axes) for name, axes in keys}
    return {key: Moments(amax[key], square[key] / counts[key]) for key in keys}

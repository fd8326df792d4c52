"""A Linear whose output is taken apart (Q, K and V at once) becomes one Linear a part.

TensorRT merges them again, in INT8; a Linear that it has to slice itself it computes in float.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator

from vitedge.graph.channel_ids import Ids
from vitedge.graph.constants import Constants
from vitedge.graph.external import DataFile

_MOVES = ("Reshape", "Transpose", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Identity")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Linear:
    """A MatMul with constant weights, the Add of its bias if there is one, and what is made of it.

    Every tensor in `parts` holds some of its output channels, moved, and nothing else.
    """

    nodes: tuple[NodeProto, ...]
    """MatMul, Add, and every operator between and `parts`."""
    bias: str
    parts: Mapping[str, Ids]
    """Flat positions in the Linear's output, shaped as the tensor."""


@dataclass(frozen=True)
class _Layout:
    """How a part lies: its tensor is the transpose by `perm` of (…, *factors)."""

    channels: NDArray[np.int64]
    """Of the Linear's output, ascending."""
    factors: tuple[int, ...]
    """What its channels are reshaped to, e.g. (heads, head size)."""
    perm: tuple[int, ...]


def split(model: ModelProto, sizes: Shapes, folder: Path, data: DataFile) -> int:
    """Split, in place, every such Linear of `model`; returns how many.

    `sizes` are the shapes of its tensors on some images, `folder` holds its external data, and
    `data` takes the new weights.
    """
    finder = _Finder(model, sizes, folder)
    linears = {linear.nodes[0].name: linear for linear in finder.linears()}
    gone: set[str] = set()
    new: dict[str, list[NodeProto]] = {}
    for name, linear in linears.items():
        dims = sizes[linear.nodes[0].output[0]]
        layouts = {part: _layout(ids, dims) for part, ids in linear.parts.items()}
        if len(linear.parts) < 2 or None in layouts.values():
            continue
        new[name] = list(_rebuilt(linear, layouts, finder.constants, data))
        gone |= {node.name for node in linear.nodes}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += new.get(node.name, [] if node.name in gone else [node])
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    used = {name for node in nodes for name in node.input} | finder.constants.hidden
    initializers = [*(t for t in model.graph.initializer if t.name in used), *data.tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    return len(new)


class _Finder:
    def __init__(self, model: ModelProto, sizes: Shapes, folder: Path) -> None:
        self._nodes, self._sizes = model.graph.node, sizes
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self.constants = Constants(model.graph, folder)
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    def linears(self) -> Iterator[_Linear]:
        """Every MatMul with weights of its own whose output is only moved and taken apart."""
        for node in self._nodes:
            if node.op_type == "MatMul" and self.constants.is_weight(node.input[1], 2):
                linear = self._follow(node)
                if linear is not None:
                    yield linear

    def _follow(self, node: NodeProto) -> _Linear | None:
        whole, used, bias = node.output[0], [node], ""
        readers = self._readers.get(whole, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            add = readers[0]
            biases = [name for name in add.input if self.constants.is_vector(name)]
            width = self.constants.dims(node.input[1])[1]
            if len(biases) != 1 or self.constants.dims(biases[0])[-1] != width:
                return None
            whole, bias = add.output[0], biases[0]
            used.append(add)
        dims = self._sizes[whole]
        pending = {whole: np.arange(np.prod(dims), dtype=np.int64).reshape(dims)}
        parts: dict[str, Ids] = {}
        while pending:
            name, ids = pending.popitem()
            readers = self._readers.get(name, [])
            moved = [self._move(reader, name, ids) for reader in readers]
            if name in self.constants.hidden or not readers or None in moved:
                parts[name] = ids
                if any(outputs is not None for outputs in moved):
                    return None  # read whole, and taken apart
                continue
            for reader, outputs in zip(readers, moved, strict=True):
                used.append(reader)
                pending.update(outputs or {})
        return _Linear(tuple(used), bias, parts)

    def _move(self, node: NodeProto, name: str, ids: Ids) -> dict[str, Ids] | None:
        """The outputs of `node`, if it only moves the values of `name`."""
        if node.op_type not in _MOVES or node.input[0] != name:
            return None
        if node.op_type == "Reshape":
            return {node.output[0]: ids.reshape(self._sizes[node.output[0]])}
        if any(other not in self.constants for other in node.input[1:] if other):
            return None
        feed: dict[str, Any] = {name: ids}
        feed.update((other, self.constants.value(other)) for other in node.input[1:] if other)
        moved: Any = ReferenceEvaluator(node, opsets=self._opsets).run(None, feed)
        return dict(zip(node.output, moved, strict=True))


def _layout(ids: Ids, dims: tuple[int, ...]) -> _Layout | None:
    """How to make a part with these `ids` of a Linear's output of `dims`; None where it differs."""
    *lead, width = dims
    *places, channel = np.unravel_index(ids, dims)
    free = [axis for axis in range(ids.ndim) if ids.shape[axis] == 1]
    axes = []
    for size, place in zip(lead, places, strict=True):
        varying = _varying(place) if size > 1 else free[:1]
        if len(varying) != 1 or ids.shape[varying[0]] != size:
            return None
        axes += varying
        free = [axis for axis in free if axis not in varying]
    rest = [axis for axis in range(ids.ndim) if axis not in axes]
    rest.sort(key=lambda axis: -_stride(channel, axis))
    factors = tuple(ids.shape[axis] for axis in rest)
    ordered = [*axes, *rest]
    moved = np.transpose(ids, ordered)
    channels = np.unique(channel)
    expected = np.arange(np.prod(dims), dtype=np.int64).reshape(dims)[..., channels]
    if len(channels) == width or not np.array_equal(moved.reshape(-1), expected.reshape(-1)):
        return None
    return _Layout(channels, factors, tuple(int(axis) for axis in np.argsort(ordered)))


def _varying(values: Ids) -> list[int]:
    """The axes along which `values` change."""
    return [axis for axis in range(values.ndim) if (values != values.take([0], axis)).any()]


def _stride(values: Ids, axis: int) -> int:
    return int(np.ptp(values.take([0, min(1, values.shape[axis] - 1)], axis), axis).max())


def _rebuilt(
    linear: _Linear, layouts: Mapping[str, _Layout | None], constants: Constants, data: DataFile
) -> Iterator[NodeProto]:
    """A Linear a part, and what brings its output into the part's shape."""
    matmul = linear.nodes[0]
    weight = constants.value(matmul.input[1])
    bias = constants.value(linear.bias).reshape(-1) if linear.bias else None
    for index, (part, layout) in enumerate(layouts.items()):
        assert layout is not None
        base = f"{matmul.name}/{index}"
        lead = len(layout.perm) - len(layout.factors)
        steps: list[tuple[str, str, dict[str, Any]]]
        steps = [("MatMul", data.add(f"{base}/weight", weight[:, layout.channels]), {})]
        if bias is not None:
            steps.append(("Add", data.add(f"{base}/bias", bias[layout.channels]), {}))
        if len(layout.factors) > 1:
            shape = np.array([0] * lead + list(layout.factors), np.int64)
            steps.append(("Reshape", data.add(f"{base}/shape", shape), {}))
        if layout.perm != tuple(range(len(layout.perm))):
            steps.append(("Transpose", "", {"perm": layout.perm}))
        value = matmul.input[0]
        for op, constant, attributes in steps:
            inputs = [value, constant] if constant else [value]
            value = part if (op, constant) == steps[-1][:2] else f"{base}/{op}"
            yield helper.make_node(op, inputs, [value], f"{base}/{op}", **attributes)

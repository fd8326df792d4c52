"""Which channels of a graph can be rescaled without changing what it computes.

Every channel that a constant can scale gets an id; ids are followed through the graph's structure,
never its names, to the constants that can undo the scale. One that meets anything else is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator

from vitedge.graph.channel_ids import Ids, along, join, narrow
from vitedge.graph.channels import Channels, Factor, Linear, Product
from vitedge.graph.constants import Constants

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_MOVES = ("Transpose", "Slice", "Split", "Concat", "Gather", "Pad", "Expand", "Tile")
# f(a·x) = a·f(x) for a > 0, value by value
_HOMOGENEOUS = ("Identity", "Dropout", "Relu", "LeakyRelu", "PRelu", "Abs")
# likewise, for values that share a scale
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


def find(model: ModelProto, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> Channels:
    """Follow every channel of `model`, whose tensors have `shapes` on some image.

    `folder` holds its external data.
    """
    tracer = _Tracer(model, shapes, folder)
    for node in model.graph.node:
        tracer.visit(node)
    return tracer.finish()


class _Tracer:
    def __init__(
        self, model: ModelProto, shapes: Mapping[str, tuple[int, ...]], folder: Path
    ) -> None:
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._shapes = shapes
        self._constants = Constants(model.graph, folder)
        self._unread = self._constants.uses.copy()
        self._ids: dict[str, Ids] = {}
        self._fixed: list[Ids] = []
        self._ties: list[tuple[Ids, Ids]] = []
        self._count = 1
        self._channels = Channels()

    def visit(self, node: NodeProto) -> None:
        """Follow one node, and forget the ids that no later node reads."""
        labelled = [name for name in node.input if name in self._ids]
        outputs = self._follow(node, bool(labelled))
        if outputs is None:
            for name in labelled:
                self._fix(self._ids[name])
        for name, ids in zip(node.output, outputs or [], strict=False):
            if name in self._constants.hidden:
                self._fix(ids)
            elif ids.any():
                self._ids[name] = ids
        self._unread.subtract(node.input)
        for name in labelled:
            if not self._unread[name]:
                self._ids.pop(name, None)

    def _fix(self, ids: Ids) -> None:
        self._fixed.append(np.unique(ids))

    def _follow(self, node: NodeProto, labelled: bool) -> list[Ids] | None:
        """The ids of the outputs; None fixes the scales of every input."""
        op = node.op_type
        if op in ("MatMul", "Gemm") and self._constants.is_weight(node.input[1], 2):
            return self._linear(node)
        if op == "Conv" and self._constants.is_weight(node.input[1]):
            return self._conv(node)
        if op == "LayerNormalization":
            return self._layer_norm(node)
        if op == "Mul" and not labelled:
            return self._affine(node)
        if not labelled:
            return None
        ids = self._ids.get(node.input[0])
        if op == "MatMul":
            return self._product(node)
        if op in ("Mul", "Div", "Add", "Sub"):
            return self._constant(node)
        if op == "Concat" and any(name not in self._ids for name in node.input):
            return None
        if ids is None:
            return None
        if op in _RESHAPES:
            return [ids.reshape(self._shapes[node.output[0]])]
        if op in _HOMOGENEOUS:
            return [ids]
        if op in _POOLS:
            channel = along(ids, [1])
            return None if channel is None else [self._spread(channel, node)]
        if op in _REDUCTIONS:
            return self._reduce(node, ids)
        return self._move(node) if op in _MOVES else None

    def _new(self, node: NodeProto, count: int) -> Ids:
        start, self._count = self._count, self._count + count
        self._channels.sources[start] = node
        return np.arange(start, self._count)

    def _spread(self, ids: Ids, node: NodeProto) -> Ids:
        return np.broadcast_to(ids, self._shapes[node.output[0]])

    def _scale(self, node: NodeProto, index: int, ids: Ids, power: int) -> None:
        self._channels.factors.append(Factor(node, index, ids, power))

    def _rank(self, name: str) -> int:
        return len(
            self._constants.dims(name) if name in self._constants else self._shapes.get(name, ())
        )

    def _layer_norm(self, node: NodeProto) -> list[Ids] | None:
        if node.input[0] in self._ids:
            self._fix(self._ids[node.input[0]])
        vectors = [i for i in (1, 2) if i < len(node.input) and node.input[i]]
        if not all(self._constants.is_vector(node.input[i]) for i in vectors):
            return None
        new = self._new(node, self._shapes[node.output[0]][-1])
        for index in vectors:
            self._scale(node, index, new, -1)
        return [self._spread(new, node)]

    def _affine(self, node: NodeProto) -> list[Ids] | None:
        """A product with one constant a channel: the γ of a norm that is spelled out."""
        for index in (0, 1):
            name = node.input[index]
            if self._constants.is_vector(name):
                dims = self._constants.dims(name)
                new = self._new(node, max(dims)).reshape(dims)
                self._scale(node, index, new, -1)
                return [self._spread(new, node)]
        return None

    def _linear(self, node: NodeProto) -> list[Ids] | None:
        flags = {a.name: a.i for a in node.attribute}
        biased = len(node.input) > 2 and node.input[2] != ""
        if flags.get("transA") or (biased and not self._constants.is_vector(node.input[2])):
            return None
        row, column = (1, 0) if flags.get("transB") else (0, 1)
        dims = self._constants.dims(node.input[1])
        self._undo(node, -1, column, lambda ids: np.expand_dims(ids.reshape(-1), column))
        new = self._new(node, dims[column])
        self._scale(node, 1, np.expand_dims(new, row), -1)
        if biased:
            self._scale(node, 2, new, -1)
        return [self._spread(new, node)]

    def _conv(self, node: NodeProto) -> list[Ids] | None:
        biased = len(node.input) > 2 and node.input[2] != ""
        if biased and not self._constants.is_vector(node.input[2]):
            return None
        dims = self._constants.dims(node.input[1])
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        kernel = (1,) * (len(dims) - 2)

        def to_weight(ids: Ids) -> Ids:
            grouped = ids.reshape(groups, dims[1]) if groups > 1 else ids.reshape(1, -1)
            by_output = np.repeat(grouped, dims[0] // groups if groups > 1 else 1, axis=0)
            return by_output.reshape(*by_output.shape, *kernel)

        self._undo(node, 1, 0, to_weight)
        new = self._new(node, dims[0])
        self._scale(node, 1, new.reshape(-1, 1, *kernel), -1)
        if biased:
            self._scale(node, 2, new, -1)
        return [self._spread(new.reshape(-1, *kernel), node)]

    def _undo(
        self, node: NodeProto, axis: int, output_axis: int, to_weight: Callable[[Ids], Ids]
    ) -> None:
        """Let the weights of `node` undo the scales of its input, one for each index of `axis`."""
        ids = self._ids.get(node.input[0])
        if ids is None:
            return
        channel = along(ids, [axis % ids.ndim])
        if channel is None:
            self._fix(ids)
            return
        weight_ids = to_weight(channel)
        self._scale(node, 1, weight_ids, 1)
        self._channels.read[node.input[0]] = channel
        self._channels.linears.append(Linear(node, weight_ids, output_axis))

    def _product(self, node: NodeProto) -> list[Ids] | None:
        """P·V passes on the scales of V; in Q·Kᵀ those of Q and K must cancel."""
        left, right = (self._ids.get(name) for name in node.input)
        if min(self._rank(name) for name in node.input) < 2:
            return None
        if left is None or right is None:
            ids, axis = (right, -2) if left is None else (left, -1)
            assert ids is not None
            others = [i for i in range(ids.ndim) if i != axis % ids.ndim]
            passed = along(ids, others)
            if passed is None:
                return None
            self._channels.read[node.input[0 if right is None else 1]] = narrow(passed)
            return [self._spread(passed, node)]
        rows = along(left, [i for i in range(left.ndim) if i != left.ndim - 2])
        columns = along(right, [i for i in range(right.ndim) if i != right.ndim - 1])
        if rows is None or columns is None:
            return None
        a, b = np.broadcast_arrays(rows[..., 0, :], columns[..., :, 0])
        if not (a.all() and b.all()):
            return None
        self._ties.append((a.reshape(-1), b.reshape(-1)))
        self._channels.read[node.input[0]] = narrow(rows)
        self._channels.read[node.input[1]] = narrow(columns)
        self._channels.products.append(Product(node, (a, b)))
        return []

    def _constant(self, node: NodeProto) -> list[Ids] | None:
        """A constant that is added takes its channel's scale; one that multiplies does nothing."""
        index = 0 if node.input[0] in self._constants else 1
        name = node.input[index]
        ids = self._ids.get(node.input[1 - index])
        if name not in self._constants or ids is None or (node.op_type == "Div" and index == 0):
            return None
        spread = self._spread(ids, node)
        if node.op_type in ("Mul", "Div"):
            return [spread]
        if not (self._constants.is_vector(name) or self._constants.is_weight(name)):
            return None
        dims = self._constants.dims(name)
        dims = (1,) * (spread.ndim - len(dims)) + dims
        channel = along(spread, [i for i, size in enumerate(dims) if size != 1])
        if channel is None:
            return None
        self._scale(node, index, channel.reshape(self._constants.dims(name)), -1)
        return [self._spread(channel, node)]

    def _reduce(self, node: NodeProto, ids: Ids) -> list[Ids] | None:
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None and len(node.input) > 1 and node.input[1] in self._constants:
            axes = self._constants.value(node.input[1]).tolist()
        if axes is None:
            return None
        reduced = {axis % ids.ndim for axis in axes}
        left = along(ids, [i for i in range(ids.ndim) if i not in reduced])
        if left is None:
            return None
        return [left if keep else left.reshape(self._shapes[node.output[0]])]

    def _move(self, node: NodeProto) -> list[Ids] | None:
        feed: dict[str, Any] = {}
        for index, name in enumerate(node.input):
            if name in self._ids:
                feed[name] = self._ids[name]
            elif name in self._constants:
                feed[name] = self._constants.value(name)
                if node.op_type == "Pad" and index == 2:
                    if feed[name].any():  # only zeros have no scale
                        return None
                    feed[name] = feed[name].astype(np.int64)
            elif name:
                return None  # computed from the shape
        if any(name in self._ids for name in node.input[1:]) and node.op_type != "Concat":
            return None
        moved: Any = ReferenceEvaluator(node, opsets=self._opsets).run(None, feed)
        return list(moved)

    def finish(self) -> Channels:
        channels = self._channels
        channels.root, channels.sign = join(self._count, self._ties, self._fixed)
        return channels

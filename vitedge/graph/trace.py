"""Which channels of a graph can be rescaled without changing what it computes.

Every channel that a constant can scale gets an id; ids are followed through the graph's structure,
never its names, to the constants that can undo the scale. One that meets anything else is fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from vitedge.graph.channel_ids import Ids, along, join, narrow
from vitedge.graph.channels import Channels, Factor, Linear, Product
from vitedge.graph.constants import evaluate, is_constant, is_vector, is_weight, shape, values
from vitedge.graph.run import Shapes

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_MOVES = ("Transpose", "Slice", "Split", "Concat", "Gather", "Pad", "Expand", "Tile")
# f(a·x) = a·f(x) for a > 0, value by value
_HOMOGENEOUS = ("Identity", "Dropout", "Relu", "LeakyRelu", "PRelu", "Abs")
# likewise, for values that share a scale
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


def find(model: ir.Model, shapes: Shapes) -> Channels:
    """Follow every channel of `model`, whose tensors have `shapes` on some image."""
    tracer = _Tracer(shapes)
    for node in model.graph:
        tracer.visit(node)
    return tracer.finish()


class _Tracer:
    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._ids: dict[ir.Value | None, Ids] = {}
        self._read: Counter[ir.Value | None] = Counter()
        self._fixed: list[Ids] = []
        self._ties: list[tuple[Ids, Ids]] = []
        self._equal: list[tuple[Ids, Ids]] = []
        self._count = 1
        self._channels = Channels()

    def visit(self, node: ir.Node) -> None:
        """Follow one node, and forget the ids that no later node reads."""
        labelled = [value for value in node.inputs if value and value in self._ids]
        outputs = self._follow(node, bool(labelled))
        if outputs is None:
            for value in labelled:
                self._fix(self._ids[value])
        for value, ids in zip(node.outputs, outputs or [], strict=False):
            readers = value.consumers()
            if value.is_graph_output() or any(reader.graph is not node.graph for reader in readers):
                self._fix(ids)
            elif ids.any():
                self._ids[value] = ids
        self._read.update(labelled)
        for value in labelled:
            if self._read[value] == len(value.uses()):
                self._ids.pop(value, None)

    def _fix(self, ids: Ids) -> None:
        self._fixed.append(np.unique(ids))

    def _follow(self, node: ir.Node, labelled: bool) -> list[Ids] | None:
        """The ids of the outputs; None fixes the scales of every input."""
        op = node.op_type
        if op in ("MatMul", "Gemm") and is_weight(node.inputs[1], 2):
            return self._linear(node)
        if op == "Conv" and is_weight(node.inputs[1]):
            return self._conv(node)
        if op == "LayerNormalization":
            return self._layer_norm(node)
        if op == "BatchNormalization":
            return self._batch_norm(node)
        if op == "Mul" and not labelled:
            return self._affine(node)
        if not labelled:
            return None
        ids = self._ids.get(node.inputs[0])
        if op == "MatMul":
            return self._product(node)
        if op in ("Mul", "Div", "Add", "Sub"):
            if not any(map(is_constant, node.inputs)):
                return self._joined(node)
            return self._constant(node)
        if op == "Concat" and any(value not in self._ids for value in node.inputs):
            return None
        if ids is None:
            return None
        if op in _RESHAPES:
            return [ids.reshape(self._shape(node))]
        if op in _HOMOGENEOUS:
            return [ids]
        if op in _POOLS:
            channel = along(ids, [1])
            return None if channel is None else [self._spread(channel, node)]
        if op in _REDUCTIONS:
            return self._reduce(node, ids)
        return self._move(node) if op in _MOVES else None

    def _new(self, node: ir.Node, count: int) -> Ids:
        start, self._count = self._count, self._count + count
        self._channels.sources[start] = node
        return np.arange(start, self._count)

    def _shape(self, node: ir.Node) -> tuple[int, ...]:
        return self._shapes[node.outputs[0].name]

    def _spread(self, ids: Ids, node: ir.Node) -> Ids:
        return np.broadcast_to(ids, self._shape(node))

    def _scale(self, node: ir.Node, index: int, ids: Ids, power: int) -> None:
        self._channels.factors.append(Factor(node, index, ids, power))

    def _rank(self, value: ir.Value | None) -> int:
        if value is None or is_constant(value):
            return len(shape(value))
        return len(self._shapes.get(value.name, ()))

    def _layer_norm(self, node: ir.Node) -> list[Ids] | None:
        if node.inputs[0] in self._ids:
            self._fix(self._ids[node.inputs[0]])
        vectors = [i for i in (1, 2) if i < len(node.inputs) and node.inputs[i]]
        if not all(is_vector(node.inputs[i]) for i in vectors):
            return None
        new = self._new(node, self._shape(node)[-1])
        for index in vectors:
            self._scale(node, index, new, -1)
        return [self._spread(new, node)]

    def _batch_norm(self, node: ir.Node) -> list[Ids] | None:
        """γ·(x − mean)/σ + β: γ and the mean undo the scales of x, γ and β take new ones.

        Of maps: of a vector an image is too few for the largest of each channel to hold on others.
        """
        if len(self._shape(node)) < 3 or not all(map(is_vector, node.inputs[1:])):
            return None
        vector = (-1, *(1,) * (len(self._shape(node)) - 2))
        if (ids := self._ids.get(node.inputs[0])) is not None:
            channel = along(ids, [1])
            if channel is None:
                return None
            self._scale(node, 1, channel.reshape(-1), 1)
            self._scale(node, 3, channel.reshape(-1), -1)
        new = self._new(node, self._shape(node)[1])
        for index in (1, 2):
            self._scale(node, index, new, -1)
        return [self._spread(new.reshape(vector), node)]

    def _affine(self, node: ir.Node) -> list[Ids] | None:
        """A product with one constant a channel: the γ of a norm that is spelled out."""
        for index in (0, 1):
            if is_vector(node.inputs[index]):
                dims = shape(node.inputs[index])
                new = self._new(node, max(dims)).reshape(dims)
                self._scale(node, index, new, -1)
                return [self._spread(new, node)]
        return None

    def _linear(self, node: ir.Node) -> list[Ids] | None:
        biased = len(node.inputs) > 2 and node.inputs[2] is not None
        if node.attributes.get_int("transA", 0) or (biased and not is_vector(node.inputs[2])):
            return None
        row, column = (1, 0) if node.attributes.get_int("transB", 0) else (0, 1)
        dims = shape(node.inputs[1])
        self._undo(node, -1, column, lambda ids: np.expand_dims(ids.reshape(-1), column))
        new = self._new(node, dims[column])
        self._scale(node, 1, np.expand_dims(new, row), -1)
        if biased:
            self._scale(node, 2, new, -1)
        return [self._spread(new, node)]

    def _conv(self, node: ir.Node) -> list[Ids] | None:
        biased = len(node.inputs) > 2 and node.inputs[2] is not None
        if biased and not is_vector(node.inputs[2]):
            return None
        dims = shape(node.inputs[1])
        groups = node.attributes.get_int("group", 1)
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
        self, node: ir.Node, axis: int, output_axis: int, to_weight: Callable[[Ids], Ids]
    ) -> None:
        """Let the weights of `node` undo the scales of its input, one for each index of `axis`."""
        ids = self._ids.get(node.inputs[0])
        if ids is None:
            return
        channel = along(ids, [axis % ids.ndim])
        if channel is None:
            self._fix(ids)
            return
        weight_ids = to_weight(channel)
        self._scale(node, 1, weight_ids, 1)
        self._channels.read[_name(node.inputs[0])] = channel
        self._channels.linears.append(Linear(node, weight_ids, output_axis))

    def _product(self, node: ir.Node) -> list[Ids] | None:
        """P·V passes on the scales of V; in Q·Kᵀ those of Q and K must cancel."""
        left, right = (self._ids.get(value) for value in node.inputs)
        if min(map(self._rank, node.inputs)) < 2:
            return None
        if left is None or right is None:
            ids, axis = (right, -2) if left is None else (left, -1)
            assert ids is not None
            others = [i for i in range(ids.ndim) if i != axis % ids.ndim]
            passed = along(ids, others)
            if passed is None:
                return None
            self._channels.read[_name(node.inputs[0 if right is None else 1])] = narrow(passed)
            return [self._spread(passed, node)]
        rows = along(left, [i for i in range(left.ndim) if i != left.ndim - 2])
        columns = along(right, [i for i in range(right.ndim) if i != right.ndim - 1])
        if rows is None or columns is None:
            return None
        a, b = np.broadcast_arrays(rows[..., 0, :], columns[..., :, 0])
        if not (a.all() and b.all()):
            return None
        self._ties.append((a.reshape(-1), b.reshape(-1)))
        self._channels.read[_name(node.inputs[0])] = narrow(rows)
        self._channels.read[_name(node.inputs[1])] = narrow(columns)
        self._channels.products.append(Product(node, (a, b)))
        return []

    def _joined(self, node: ir.Node) -> list[Ids] | None:
        """A sum shares the scales of both; a factor without any, a gate, passes the other's on."""
        left, right = (self._ids.get(value) for value in node.inputs)
        if node.op_type in ("Add", "Sub"):
            if left is None or right is None:
                return None
            a, b = self._spread(left, node), self._spread(right, node)
            if left.shape != right.shape or ((a == 0) | (b == 0)).any():
                return None
            self._equal.append((a.reshape(-1), b.reshape(-1)))
            return [a]
        if left is not None and right is not None:
            return None
        if left is None and node.op_type == "Div":
            return None
        ids = right if left is None else left
        assert ids is not None
        return [self._spread(ids, node)]

    def _constant(self, node: ir.Node) -> list[Ids] | None:
        """A constant that is added takes its channel's scale; one that multiplies does nothing."""
        index = 0 if is_constant(node.inputs[0]) else 1
        constant = node.inputs[index]
        ids = self._ids.get(node.inputs[1 - index])
        if not is_constant(constant) or ids is None or (node.op_type == "Div" and index == 0):
            return None
        spread = self._spread(ids, node)
        if node.op_type in ("Mul", "Div"):
            return [spread]
        if not (is_vector(constant) or is_weight(constant)):
            return None
        dims = shape(constant)
        lead = spread.ndim - len(dims)
        channel = along(spread, [lead + i for i, size in enumerate(dims) if size != 1])
        if channel is None:
            return None
        self._scale(node, index, channel.reshape(dims), -1)
        return [self._spread(channel, node)]

    def _reduce(self, node: ir.Node, ids: Ids) -> list[Ids] | None:
        axes = node.attributes.get_ints("axes")
        if axes is None and len(node.inputs) > 1 and is_constant(node.inputs[1]):
            axes = values(node.inputs[1]).tolist()
        if axes is None:
            return None
        reduced = {axis % ids.ndim for axis in axes}
        left = along(ids, [i for i in range(ids.ndim) if i not in reduced])
        if left is None:
            return None
        keep = node.attributes.get_int("keepdims", 1)
        return [left if keep else left.reshape(self._shape(node))]

    def _move(self, node: ir.Node) -> list[Ids] | None:
        known = {value: self._ids[value] for value in node.inputs if value in self._ids}
        if node.op_type != "Concat" and any(value in known for value in node.inputs[1:]):
            return None
        filling = node.inputs[2] if node.op_type == "Pad" and len(node.inputs) > 2 else None
        if is_constant(filling):
            if values(filling).any():  # only zeros have no scale
                return None
            known[filling] = values(filling).astype(np.int64)
        return evaluate(node, known)

    def finish(self) -> Channels:
        channels = self._channels
        channels.root, channels.sign = join(self._count, self._ties, self._equal, self._fixed)
        return channels


def _name(value: ir.Value | None) -> str:
    assert value is not None and value.name is not None
    return value.name

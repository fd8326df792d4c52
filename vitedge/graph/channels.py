"""Which channels of a graph can be rescaled without changing what it computes.

Every channel that a constant can scale gets an id; ids are followed through the graph's structure,
never its names, to the constants that can undo the scale. One that meets anything else is fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Ids = NDArray[np.int64]
"""One id for each value of a tensor; 0 where the value is a literal zero, whatever its scale."""

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_MOVES = ("Transpose", "Slice", "Split", "Concat", "Gather", "Pad", "Expand", "Tile")
# f(a·x) = a·f(x) for a > 0, value by value
_HOMOGENEOUS = ("Identity", "Dropout", "Relu", "LeakyRelu", "PRelu", "Abs")
# likewise, for values that share a scale
_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax")


@dataclass(frozen=True)
class Factor:
    """Input `index` of `node`, a constant, is to be multiplied by scale[ids] ** power."""

    node: NodeProto
    index: int
    ids: Ids
    """Broadcasts to the constant's shape."""
    power: int


@dataclass(frozen=True)
class Linear:
    """A layer with constant weights that undoes the scales of its input."""

    node: NodeProto
    weight_ids: Ids
    """Broadcasts to the weight's shape."""
    output_axis: int
    """Of the weight."""


@dataclass(frozen=True)
class Product:
    """A product of two activations in which the scales of both cancel: Q·Kᵀ."""

    node: NodeProto
    pairs: tuple[Ids, Ids]
    """Ids of its first input's columns and its second's rows, in the order they meet."""


@dataclass
class Channels:
    """What there is to choose: scale[id] = free[root[id]] ** sign[id], and 1 for root 0."""

    factors: list[Factor] = field(default_factory=list)
    read: dict[str, Ids] = field(default_factory=dict)
    """Of each activation that a layer or a product reads: 1 along every axis on which its ids do
    not vary."""
    linears: list[Linear] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    sources: dict[int, NodeProto] = field(default_factory=dict)
    """First id -> the node whose output channels these and the following ids are."""
    root: Ids = field(default_factory=lambda: np.zeros(1, np.int64))
    sign: Ids = field(default_factory=lambda: np.ones(1, np.int64))


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
        self._folder = str(folder)
        graph = model.graph
        self._opsets = {o.domain: o.version for o in model.opset_import}
        self._shapes = shapes
        self._stored = {t.name: t for t in graph.initializer}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._unread = self._uses.copy()
        self._hidden = set(_outer_names(graph)) | {value.name for value in graph.output}
        self._ids: dict[str, Ids] = {}
        self._fixed: list[Ids] = []
        self._ties: list[tuple[Ids, Ids]] = []
        self._count = 1
        self._found = Channels()

    def visit(self, node: NodeProto) -> None:
        """Follow one node, and forget the ids that no later node reads."""
        labelled = [name for name in node.input if name in self._ids]
        outputs = self._follow(node, bool(labelled))
        if outputs is None:
            for name in labelled:
                self._fix(self._ids[name])
        for name, ids in zip(node.output, outputs or [], strict=False):
            if name in self._hidden:
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
        if op in ("MatMul", "Gemm") and self._is_weight(node.input[1], 2):
            return self._linear(node)
        if op == "Conv" and self._is_weight(node.input[1]):
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
            channel = _along(ids, [1])
            return None if channel is None else [self._spread(channel, node)]
        if op in _REDUCTIONS:
            return self._reduce(node, ids)
        return self._move(node) if op in _MOVES else None

    def _new(self, node: NodeProto, count: int) -> Ids:
        start, self._count = self._count, self._count + count
        self._found.sources[start] = node
        return np.arange(start, self._count)

    def _spread(self, ids: Ids, node: NodeProto) -> Ids:
        return np.broadcast_to(ids, self._shapes[node.output[0]])

    def _scale(self, node: NodeProto, index: int, ids: Ids, power: int) -> None:
        self._found.factors.append(Factor(node, index, ids, power))

    def _rank(self, name: str) -> int:
        return len(self._stored[name].dims if name in self._stored else self._shapes.get(name, ()))

    def _is_weight(self, name: str, ndim: int = 0) -> bool:
        """Whether the constant `name` is float32 and nobody else reads it."""
        tensor = self._stored.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and self._uses[name] == 1
            and name not in self._hidden
            and len(tensor.dims) == (ndim or len(tensor.dims))
        )

    def _is_vector(self, name: str) -> bool:
        """Whether the constant `name` is one value a channel: small enough to copy if shared."""
        tensor = self._stored.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and sum(size != 1 for size in tensor.dims) == 1
        )

    def _layer_norm(self, node: NodeProto) -> list[Ids] | None:
        if node.input[0] in self._ids:
            self._fix(self._ids[node.input[0]])
        vectors = [i for i in (1, 2) if i < len(node.input) and node.input[i]]
        if not all(self._is_vector(node.input[i]) for i in vectors):
            return None
        new = self._new(node, self._shapes[node.output[0]][-1])
        for index in vectors:
            self._scale(node, index, new, -1)
        return [self._spread(new, node)]

    def _affine(self, node: NodeProto) -> list[Ids] | None:
        """A product with one constant a channel: the γ of a norm that is spelled out."""
        for index in (0, 1):
            name = node.input[index]
            if self._is_vector(name):
                dims = tuple(self._stored[name].dims)
                new = self._new(node, max(dims)).reshape(dims)
                self._scale(node, index, new, -1)
                return [self._spread(new, node)]
        return None

    def _linear(self, node: NodeProto) -> list[Ids] | None:
        flags = {a.name: a.i for a in node.attribute}
        biased = len(node.input) > 2 and node.input[2] != ""
        if flags.get("transA") or (biased and not self._is_vector(node.input[2])):
            return None
        row, column = (1, 0) if flags.get("transB") else (0, 1)
        dims = self._stored[node.input[1]].dims
        self._undo(node, -1, column, lambda ids: np.expand_dims(ids.reshape(-1), column))
        new = self._new(node, dims[column])
        self._scale(node, 1, np.expand_dims(new, row), -1)
        if biased:
            self._scale(node, 2, new, -1)
        return [self._spread(new, node)]

    def _conv(self, node: NodeProto) -> list[Ids] | None:
        biased = len(node.input) > 2 and node.input[2] != ""
        if biased and not self._is_vector(node.input[2]):
            return None
        dims = self._stored[node.input[1]].dims
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        kernel = (1,) * (len(dims) - 2)

        def to_weight(ids: Ids) -> Ids:
            grouped = ids.reshape(groups, dims[1]) if groups > 1 else ids.reshape(1, -1)
            each = np.repeat(grouped, dims[0] // groups if groups > 1 else 1, axis=0)
            return each.reshape(*each.shape, *kernel)

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
        channel = _along(ids, [axis % ids.ndim])
        if channel is None:
            self._fix(ids)
            return
        weight_ids = to_weight(channel)
        self._scale(node, 1, weight_ids, 1)
        self._found.read[node.input[0]] = channel
        self._found.linears.append(Linear(node, weight_ids, output_axis))

    def _product(self, node: NodeProto) -> list[Ids] | None:
        """P·V passes on the scales of V; in Q·Kᵀ those of Q and K must cancel."""
        left, right = (self._ids.get(name) for name in node.input)
        if min(self._rank(name) for name in node.input) < 2:
            return None
        if left is None or right is None:
            ids, axis = (right, -2) if left is None else (left, -1)
            assert ids is not None
            others = [i for i in range(ids.ndim) if i != axis % ids.ndim]
            passed = _along(ids, others)
            if passed is None:
                return None
            self._found.read[node.input[0 if right is None else 1]] = _narrow(passed)
            return [self._spread(passed, node)]
        rows = _along(left, [i for i in range(left.ndim) if i != left.ndim - 2])
        columns = _along(right, [i for i in range(right.ndim) if i != right.ndim - 1])
        if rows is None or columns is None:
            return None
        a, b = np.broadcast_arrays(rows[..., 0, :], columns[..., :, 0])
        if not (a.all() and b.all()):
            return None
        self._ties.append((a.reshape(-1), b.reshape(-1)))
        self._found.read[node.input[0]] = _narrow(rows)
        self._found.read[node.input[1]] = _narrow(columns)
        self._found.products.append(Product(node, (a, b)))
        return []

    def _constant(self, node: NodeProto) -> list[Ids] | None:
        """A constant that is added takes its channel's scale; one that multiplies does nothing."""
        index = 0 if node.input[0] in self._stored else 1
        name = node.input[index]
        ids = self._ids.get(node.input[1 - index])
        if name not in self._stored or ids is None or (node.op_type == "Div" and index == 0):
            return None
        spread = self._spread(ids, node)
        if node.op_type in ("Mul", "Div"):
            return [spread]
        if not (self._is_vector(name) or self._is_weight(name)):
            return None
        dims = tuple(self._stored[name].dims)
        dims = (1,) * (spread.ndim - len(dims)) + dims
        taken = _along(spread, [i for i, size in enumerate(dims) if size != 1])
        if taken is None:
            return None
        self._scale(node, index, taken.reshape(self._stored[name].dims), -1)
        return [self._spread(taken, node)]

    def _reduce(self, node: NodeProto, ids: Ids) -> list[Ids] | None:
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None and len(node.input) > 1 and node.input[1] in self._stored:
            axes = numpy_helper.to_array(self._stored[node.input[1]], self._folder).tolist()
        if axes is None:
            return None
        reduced = {axis % ids.ndim for axis in axes}
        left = _along(ids, [i for i in range(ids.ndim) if i not in reduced])
        if left is None:
            return None
        return [left if keep else left.reshape(self._shapes[node.output[0]])]

    def _move(self, node: NodeProto) -> list[Ids] | None:
        feed: dict[str, Any] = {}
        for index, name in enumerate(node.input):
            if name in self._ids:
                feed[name] = self._ids[name]
            elif name in self._stored:
                feed[name] = numpy_helper.to_array(self._stored[name], self._folder)
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
        found = self._found
        found.root, found.sign = _join(self._count, self._ties, self._fixed)
        return found


def _along(ids: Ids, axes: Iterable[int]) -> Ids | None:
    """`ids` with 1 along every axis but `axes`; None where they differ along another axis."""
    others = tuple(i for i in range(ids.ndim) if i not in axes)
    channel: Ids = ids.max(axis=others, keepdims=True)
    return channel if ((ids == channel) | (ids == 0)).all() else None


def _narrow(ids: Ids) -> Ids:
    """`ids` with 1 along every axis on which they do not vary."""
    for axis in range(ids.ndim):
        first = ids.take([0], axis)
        if (ids == first).all():
            ids = first
    return ids


def _join(count: int, ties: list[tuple[Ids, Ids]], fixed: list[Ids]) -> tuple[Ids, Ids]:
    """Root and sign of each id, where scale[a] · scale[b] = 1 for every tie (a, b)."""
    parent, sign = list(range(count)), [1] * count

    def find_root(one: int) -> tuple[int, int]:
        path = 1
        while parent[one] != one:
            path *= sign[one]
            one = parent[one]
        return one, path

    still = {0}
    for ids in fixed:
        still.update(ids.tolist())
    for left, right in ties:
        for a, b in np.unique(np.stack([left, right], axis=1), axis=0).tolist():
            (ra, sa), (rb, sb) = find_root(a), find_root(b)
            if ra != rb:
                parent[rb], sign[rb] = ra, -sa * sb
            elif sa == sb:  # scale² = 1
                still.add(ra)
    found = [find_root(one) for one in range(count)]
    fixed_roots = {found[one][0] for one in still}
    root = np.array([0 if r in fixed_roots else r for r, _ in found], np.int64)
    return root, np.array([s for _, s in found], np.int64)


def _outer_names(graph: GraphProto) -> Iterable[str]:
    """Every name that a subgraph reads, of the graph around it or its own."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for inner in attribute.g.node:
                    yield from inner.input
                yield from (value.name for value in attribute.g.output)
                yield from _outer_names(attribute.g)

"""LayerNorm and RMSNorm that an exporter spelled out: their squares leave float16 at |x| = 256.

What is a LayerNorm exactly becomes the operator, which adds up in float32; the rest is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_ROOTS = ("Sqrt", "Reciprocal", "Pow")
_SCALINGS = ("Add", "Max", "Clip", "Mul", "Div", "Cast", "Identity")
"""What may stand between the mean of squares and its root, with a constant: ε, 1/N, a bound."""


class Norms:
    """The norms of a graph that are spelled out, found by their structure.

    `shapes` are the tensors' shapes on some image; `folder` holds the model's external data.
    """

    def __init__(
        self, model: ModelProto, shapes: Mapping[str, tuple[int, ...]], folder: Path
    ) -> None:
        self._graph, self._shapes, self._folder = model.graph, shapes, str(folder)
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._outputs = {value.name for value in model.graph.output}
        self._index()

    def _index(self) -> None:
        self._makers: dict[str, NodeProto] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        for node in self._graph.node:
            self._makers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(node)

    def fuse(self) -> int:
        """Replace, in place, every exact LayerNorm over the last axis; returns how many."""
        norms: dict[str, NodeProto] = {}
        gone: set[str] = set()
        for square in self._graph.node:
            if self._is_square(square) and (fusion := self._layer_norm(square)):
                pieces, norm = fusion
                norms[pieces[-1].name] = norm
                gone |= {piece.name for piece in pieces[:-1]}
        nodes = [norms.get(node.name, node) for node in self._graph.node if node.name not in gone]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        self._index()
        return len(norms)

    def spelled_out(self) -> set[str]:
        """The nodes of the norms that are no LayerNorm operator."""
        names: set[str] = set()
        for square in self._graph.node:
            if self._is_square(square):
                for mean in self._readers.get(square.output[0], []):
                    names |= self._pieces(square, mean)
        return names

    def _pieces(self, square: NodeProto, mean: NodeProto) -> set[str]:
        """From what is squared to the division by the root; nothing where there is no root."""
        if mean.op_type not in ("ReduceMean", "ReduceSum", "GlobalAveragePool"):
            return set()
        pieces, rooted, node = [square, mean], False, mean
        while len(readers := self._readers.get(node.output[0], [])) == 1:
            node = readers[0]
            pieces.append(node)
            if node.op_type in _ROOTS:
                rooted = True
            elif node.op_type not in _SCALINGS or not self._with_constants(node):
                break
        if not rooted:
            return set()
        centred = self._makers.get(square.input[0])
        if centred is not None and centred.op_type == "Sub":
            pieces += [centred, *self._means_of(centred)]
        return {piece.name for piece in pieces}

    def _means_of(self, centred: NodeProto) -> list[NodeProto]:
        mean = self._makers.get(centred.input[1])
        return [mean] if mean is not None and mean.op_type == "ReduceMean" else []

    def _with_constants(self, node: NodeProto) -> bool:
        return len([name for name in node.input if name and name not in self._stored]) == 1

    def _is_square(self, node: NodeProto) -> bool:
        if node.op_type == "Mul":
            return len({*node.input}) == 1
        return bool(node.op_type == "Pow" and self._scalar(node.input[1]) == 2.0)

    def _scalar(self, name: str) -> float | None:
        """The one value of the constant `name`."""
        tensor = self._stored.get(name)
        if tensor is None or any(size != 1 for size in tensor.dims):
            return None
        return float(self._value(name).reshape(()))

    def _value(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self._stored[name], self._folder)

    def _only_reader(self, node: NodeProto, *ops: str) -> NodeProto | None:
        name = node.output[0]
        readers = self._readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type not in ops or name in self._outputs:
            return None
        return readers[0]

    def _is_mean(self, node: NodeProto | None) -> bool:
        """Whether `node` is a mean over the last axis, which it keeps."""
        if node is None or node.op_type != "ReduceMean":
            return False
        attributes = {a.name: a for a in node.attribute}
        if "keepdims" in attributes and not attributes["keepdims"].i:
            return False
        axes = list(attributes["axes"].ints) if "axes" in attributes else []
        if len(node.input) > 1 and node.input[1] in self._stored:
            axes = self._value(node.input[1]).tolist()
        rank = len(self._shapes[node.output[0]])
        return [axis % rank for axis in axes] == [rank - 1]

    def _layer_norm(self, square: NodeProto) -> tuple[list[NodeProto], NodeProto] | None:
        """The pieces around `square`, in order, and the one operator that computes the same."""
        centred = self._makers.get(square.input[0])
        if centred is None or centred.op_type != "Sub":
            return None
        mean = self._makers.get(centred.input[1])
        if mean is None or not self._is_mean(mean) or mean.input[0] != centred.input[0]:
            return None
        variance = self._only_reader(square, "ReduceMean")
        shifted = (
            self._only_reader(variance, "Add") if variance and self._is_mean(variance) else None
        )
        root = self._only_reader(shifted, "Sqrt") if shifted else None
        divided = self._only_reader(root, "Div", "Reciprocal") if root else None
        if not (variance and shifted and root and divided):
            return None
        pieces = [mean, centred, square, variance, shifted, root, divided]
        if divided.op_type == "Reciprocal":
            product = self._only_reader(divided, "Mul")
            if product is None or centred.output[0] not in product.input:
                return None
            pieces.append(product)
        elif list(divided.input) != [centred.output[0], root.output[0]]:
            return None
        epsilon = next((e for e in map(self._scalar, shifted.input) if e is not None), None)
        private = {
            centred.output[0]: {square.name, pieces[-1].name},
            mean.output[0]: {centred.name},
        }
        for name, readers in private.items():
            if name in self._outputs or {node.name for node in self._readers[name]} != readers:
                return None
        return None if epsilon is None else (pieces, self._fused(pieces, centred.input[0], epsilon))

    def _fused(self, pieces: list[NodeProto], x: str, epsilon: float) -> NodeProto:
        """One LayerNormalization, with the γ and β that follow; appends them to `pieces`."""
        width = self._shapes[x][-1]
        parameters = [np.ones(width, np.float32), np.zeros(width, np.float32)]
        for index, op in enumerate(("Mul", "Add")):
            after = self._only_reader(pieces[-1], op)
            names = [name for name in after.input if name in self._stored] if after else []
            dims = tuple(self._stored[names[0]].dims) if len(names) == 1 else ()
            if after is None or not dims or dims[-1] != width or np.prod(dims) != width:
                continue
            parameters[index] = self._value(names[0]).reshape(-1)
            pieces.append(after)
        output = pieces[-1].output[0]
        names = [f"{output}.gamma", f"{output}.beta"]
        for name, value in zip(names, parameters, strict=True):
            tensor = numpy_helper.from_array(value, name)
            self._graph.initializer.append(tensor)
            self._stored[name] = tensor
        return helper.make_node(
            "LayerNormalization",
            [x, *names],
            [output],
            f"{pieces[-1].name}/LayerNormalization",
            axis=-1,
            epsilon=epsilon,
            stash_type=TensorProto.FLOAT,
        )

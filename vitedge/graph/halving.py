"""The rewriting itself: which version of a tensor an operator reads, and where Casts go.

A tensor keeps its name in float32; its float16 version is `<name>.half`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

from vitedge.graph.external import DataFile


class Halves:
    """Writes `model` with the inputs and outputs that `ports` lists, by node, in float16.

    `folder` holds the model's external data; the written file has its own beside it.
    """

    def __init__(
        self,
        model: ModelProto,
        folder: Path,
        path: Path,
        ports: Mapping[str, tuple[list[str], list[str]]],
    ) -> None:
        self._model, self._folder, self._path, self._ports = model, str(folder), path, ports
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._available: set[str] = set()
        self._nodes: list[NodeProto] = []
        self.names: set[str] = set()
        """The tensors that are float16 in the written graph."""

    def write(self) -> None:
        """Write the ONNX file; weights are read one at a time."""
        graph = self._model.graph
        for node in graph.node:
            self._place(node)
        for value in graph.output:
            self._float(value.name)
        written = ModelProto()
        written.CopyFrom(self._model)
        del written.graph.node[:], written.graph.initializer[:], written.graph.value_info[:]
        written.graph.node.extend(self._nodes)
        written.graph.initializer.extend(self._tensors())
        onnx.save(written, self._path)

    def _place(self, node: NodeProto) -> None:
        """Append `node`, and the Casts it needs."""
        placed = NodeProto.FromString(node.SerializeToString())
        inputs, outputs = self._ports.get(node.name, ([], []))
        for index, name in enumerate(node.input):
            placed.input[index] = self._half(name) if name in inputs else self._float(name)
        for name in _captured(node):
            self._float(name)
        for index, name in enumerate(node.output):
            if name in outputs:
                placed.output[index] = f"{name}.half"
                self.names.add(f"{name}.half")
            self._available.add(placed.output[index])
        self._nodes.append(placed)

    def _half(self, name: str) -> str:
        """The float16 version of `name`, made where there is none."""
        half = f"{name}.half"
        self.names.add(half)
        if half not in self._available and name not in self._stored:
            self._cast(name, half, TensorProto.FLOAT16)
        self._available.add(half)
        return half

    def _float(self, name: str) -> str:
        """The original `name`, made again where there is only a float16 version."""
        if (
            name not in self._available
            and f"{name}.half" in self._available
            and name not in self._stored
        ):
            self._cast(f"{name}.half", name, TensorProto.FLOAT)
        self._available.add(name)
        return name

    def _cast(self, name: str, to: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [to], f"{to}/Cast", to=kind))

    def _tensors(self) -> list[TensorProto]:
        """The constants that are read, large ones in the data file."""
        data = DataFile(self._path)
        for name, tensor in self._stored.items():
            versions = [v for v in (name, f"{name}.half") if v in self._available]
            if not versions:
                continue
            value = numpy_helper.to_array(tensor, self._folder)
            for version in versions:
                data.add(version, value if version == name else value.astype(np.float16))
        return data.tensors


def _captured(node: NodeProto) -> Iterator[str]:
    """The names that the subgraphs of `node` may read from outside."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield from _read_in(attribute.g)


def _read_in(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from _captured(node)
    yield from (value.name for value in graph.output)


def rounded(half: ModelProto, names: set[str]) -> ModelProto:
    """`half` in float32, with every float16 result of an operator rounded to float16.

    ONNX Runtime's CPU computes runs of float16 operators in float32 and drops the Casts between
    that it put there itself: an overflow would not show. Casts of the graph's own are honoured.
    """
    nodes: list[NodeProto] = []
    widened: set[str] = set()

    def widen(name: str) -> str:
        if name not in widened:
            widened.add(name)
            nodes.append(helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT))
        return f"{name}.float"

    for node in half.graph.node:
        casts = node.op_type == "Cast" and names & {*node.input, *node.output}
        placed = NodeProto.FromString(node.SerializeToString())
        nodes_after = []
        if not casts:
            for index, name in enumerate(node.input):
                if name in names:
                    placed.input[index] = widen(name)
            for index, name in enumerate(node.output):
                if name in names:
                    placed.output[index] = f"{name.removesuffix('.half')}.exact"
                    nodes_after.append(
                        helper.make_node(
                            "Cast", [placed.output[index]], [name], to=TensorProto.FLOAT16
                        )
                    )
        nodes += [placed, *nodes_after]
        for name in node.output:
            if name in names and not casts:
                widen(name)
    exact = ModelProto()
    exact.CopyFrom(half)
    del exact.graph.node[:]
    exact.graph.node.extend(nodes)
    return exact

"""The constants of a graph, and which of them may be changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper


class Constants:
    """The stored tensors of a graph, whose external data lies in `folder`."""

    def __init__(self, graph: GraphProto, folder: Path) -> None:
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.uses = Counter(name for node in graph.node for name in node.input)
        """How many inputs of nodes read each tensor, activations included."""
        self.hidden = set(_outer_names(graph)) | {value.name for value in graph.output}
        """Tensors that a subgraph or the graph's user reads."""
        self._folder = str(folder)

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def dims(self, name: str) -> tuple[int, ...]:
        """The shape of the constant `name`."""
        return tuple(self.stored[name].dims)

    def value(self, name: str) -> NDArray[Any]:
        """The constant `name` as an array."""
        return numpy_helper.to_array(self.stored[name], self._folder)

    def is_weight(self, name: str, ndim: int = 0) -> bool:
        """Whether the constant `name` is float32 and nobody else reads it."""
        tensor = self.stored.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and self.uses[name] == 1
            and name not in self.hidden
            and len(tensor.dims) == (ndim or len(tensor.dims))
        )

    def is_vector(self, name: str) -> bool:
        """Whether the constant `name` is one value a channel: small enough to copy if shared."""
        tensor = self.stored.get(name)
        return (
            tensor is not None
            and tensor.data_type == TensorProto.FLOAT
            and sum(size != 1 for size in tensor.dims) == 1
        )


def _outer_names(graph: GraphProto) -> Iterable[str]:
    """Every name that a subgraph reads, of the graph around it or its own."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                for inner in attribute.g.node:
                    yield from inner.input
                yield from (value.name for value in attribute.g.output)
                yield from _outer_names(attribute.g)

"""What the compiler made of a graph, read from its log: the kernels, and the nodes they stand for.

TensorRT-RTX 1.7 writes a line a layer: `Name: …, LayerType: …, Inputs: [ … ], … Metadata: …`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = re.compile(r"Name: (.*?), LayerType: (\w+)")
_DTYPE = re.compile(r"Datatype: (\w+)")
_SUFFIX = re.compile(r"_myl\d+_\d+$")


@dataclass(frozen=True)
class CompiledLayer:
    """One kernel of an engine. Data types are as TensorRT names them: `Int8`, `FP8`, `Half`, …"""

    name: str
    kind: str
    """`gemm`, `correlation`, `runtime_fusion`, or `kgen` for generated code."""
    inputs: tuple[str, ...]
    """Data types of the activations it reads."""
    constants: tuple[str, ...]
    """Data types of weights, biases and scales."""
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    """Every ONNX node that has a part in it, if only a scale."""

    @property
    def multiplies(self) -> bool:
        """Whether it holds matrix products. Generated code reads their results, unless `_gemm…`."""
        return self.kind != "kgen" or self.name.startswith("_gemm")

    @property
    def converts(self) -> bool:
        """Whether it makes floats of what it reads before it multiplies: `__myl_CastMulFc`."""
        first = ("__myl_Fc", "__myl_Corr")  # a fusion is named after its steps, in order
        return self.kind == "runtime_fusion" and not self.name.startswith(first)

    def __str__(self) -> str:
        """Kernel and operands: `__myl_CastMulFc (runtime_fusion) of Int8 × Half`."""
        name = _SUFFIX.sub("", self.name)
        return f"{name} ({self.kind}) of {' × '.join((*self.inputs, *self.constants))}"


def layers(log: str) -> tuple[CompiledLayer, ...]:
    """Every compiled layer that a build log describes, in the order they run."""
    return tuple(
        CompiledLayer(
            name=head[1],
            kind=head[2],
            inputs=_dtypes(line, "Inputs"),
            constants=_dtypes(line, "Constants"),
            outputs=_dtypes(line, "Outputs"),
            nodes=tuple(_nodes(line)),
        )
        for line in log.splitlines()
        if (head := _HEAD.match(line))
    )


def _dtypes(line: str, section: str) -> tuple[str, ...]:
    """The data type of every tensor in `Section: [ {…}, {…} ]`; brackets nest."""
    _, opening, rest = line.partition(f", {section}: [")
    depth, end = 1 if opening else 0, 0
    while depth and end < len(rest):
        depth += {"[": 1, "]": -1}.get(rest[end], 0)
        end += 1
    return tuple(_DTYPE.findall(rest[:end]))


def _nodes(line: str) -> Iterator[str]:
    _, _, metadata = line.partition(", Metadata: ")
    for part in metadata.split("[ONNX Layer: ")[1:]:
        yield part.rstrip().removesuffix("]")

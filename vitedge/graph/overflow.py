"""Which operators of an FP32 graph would leave float16's range, as measured on images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import defs, helper

from vitedge.core.errors import SharedError
from vitedge.core.manifest import Cause, Kept
from vitedge.graph.constants import is_constant, names_of, values
from vitedge.graph.run import Progress, Shapes, tapped

FP16_MAX = 65504.0
FP16_NORMAL = 2.0**-14
"""Below this, float16 has fewer than 11 significant bits; below 2⁻²⁴ nothing is left."""
SPELLED_OUT = "part of a spelled-out norm, whose squares overflow"
_SQUARES = (
    *("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"),
    *("LpNormalization", "LpPool", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "LRN"),
)
_SUMS = ("ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool", "AveragePool", "CumSum")
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
"""Their scales were rounded to float16 when they were found."""
_PIXEL_OPS = ("Cast", "Mul", "Add", "Sub", "Div", "Transpose", "Gather", "Identity")
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
FLOAT = "tensor(float)"


class Guard:
    """What is known of every float tensor, and what that means for every operator.

    `source` is the ONNX file that `model` was made of; `sizes` are the shapes of its tensors.
    """

    def __init__(
        self,
        model: ir.Model,
        source: Path,
        spelled_out: set[str],
        sizes: Shapes,
        kind: ir.DataType = ir.DataType.FLOAT16,
    ) -> None:
        self._graph, self._source, self._sizes = model.graph, source, sizes
        self._spelled_out, self._kind = spelled_out, kind
        names = [name for node in self._graph for name in names_of(node.outputs)]
        types = dict(zip(names, tapped(source, names).types, strict=True))
        self._activations = [name for name in names if types[name] == FLOAT]
        self._amax = {
            name: float(np.abs(values(value)).max(initial=0.0))
            for name, value in self._graph.initializers.items()
            if value.dtype == ir.DataType.FLOAT
        }
        self._floats = {*self._activations, *self._amax}
        self._pixels = self._preprocessing()

    def _preprocessing(self) -> set[str]:
        """The nodes that make normalised pixels of the image: what comes before all else."""
        pixels, names = {self._graph.inputs[0]}, set()
        for node in self._graph:
            others = [value for value in node.inputs if value and not is_constant(value)]
            if node.op_type in _PIXEL_OPS and others and set(others) <= pixels:
                pixels.update(node.outputs)
                names.add(node.name or "")
        return names

    def measure(self, batches: Iterator[NDArray[np.uint8]], total: int, progress: Progress) -> None:
        """Take max|x| of every activation; two numbers an activation are kept of a run."""
        nodes = [
            helper.make_node(op, [name], [f"{name}/{op}"], keepdims=0)
            for name in self._activations
            for op in ("ReduceMax", "ReduceMin")
        ]
        run = tapped(self._source, [node.output[0] for node in nodes], nodes, often=True)
        seen = 0
        amax = np.zeros(len(self._activations))
        for images, extremes in run.stream(batches):
            magnitudes = np.abs(np.array(extremes, np.float64)).reshape(-1, 2)
            amax = np.maximum(amax, magnitudes.max(axis=1))  # keeps NaN
            seen += len(images)
            progress("looking for overflow", seen, total)
        for name, largest in zip(self._activations, amax.tolist(), strict=True):
            if not np.isfinite(largest):
                raise SharedError(
                    f"activation '{name}' is NaN or infinite on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                )
            self._amax[name] = largest

    def largest(self) -> tuple[float, str]:
        """The largest activation but pixels, and the node it comes from."""
        maxima = [
            (self._amax[name], node.name or "")
            for node in self._graph
            if node.name not in self._pixels
            for name in names_of(node.outputs)
            if name in self._amax
        ]
        return max(maxima, default=(0.0, ""))

    def keep(self, limit: float) -> dict[str, Kept]:
        """The nodes that stay in float32 so that nothing in float16 exceeds `limit`, by name."""
        kept = {}
        for node in self._graph:
            calculates = any(name in self._floats for name in names_of(node.inputs))
            if calculates and node.name not in self._pixels and (why := self._why(node, limit)):
                name, (cause, reason) = node.name or "", why
                kept[name] = Kept(node=name, op=node.op_type, why=reason, cause=cause)
        return kept

    def without_form(self) -> dict[str, Kept]:
        """The nodes that stay in float32 for want of a narrower form, by name."""
        return {
            node.name or "": Kept(
                node=node.name or "",
                op=node.op_type,
                why=self._no_form(node),
                cause="no narrow form",
            )
            for node in self._graph
            if node.name not in self._pixels
            and any(name in self._floats for name in names_of(node.inputs))
            and not any(self._ports(node))
        }

    def _why(self, node: ir.Node, limit: float) -> tuple[Cause, str] | None:
        if node.name in self._spelled_out:
            return "overflow", SPELLED_OUT
        if not any(self._ports(node)):
            return "no narrow form", self._no_form(node)
        if node.op_type in _SQUARES:
            return "overflow", "adds up squares inside"
        for name in names_of((*node.inputs, *node.outputs)):
            largest = self._amax.get(name, 0.0)
            if name in self._graph.initializers:
                if node.op_type in _QUANTIZERS:
                    continue
                if largest > FP16_MAX:
                    return "overflow", f"its constant '{name}' reaches {largest:.3g}"
                if 0 < largest < FP16_NORMAL:
                    why = f"its constant '{name}', {largest:.3g}, is too small for float16"
                    return "underflow", why
            elif largest > limit:
                return "overflow", f"'{name}' reaches {largest:.4g}"
        inside = self._inside(node)
        return ("overflow", f"reaches {inside:.3g} inside") if inside > limit else None

    def _no_form(self, node: ir.Node) -> str:
        """That ONNX has no narrower form of `node`, or from which opset on."""
        opsets = range(self._graph.opset_imports[node.domain] + 1, defs.onnx_opset_version() + 1)
        first = next((n for n in opsets if not node.domain and any(self._ports(node, n))), None)
        before = f" before opset {first}" if first else ""
        return f"{node.op_type} has no {self._kind.name.lower()} form{before}"

    def _inside(self, node: ir.Node) -> float:
        """The largest value a kernel may hold between input and output, where that is larger."""
        name = node.inputs[0].name if node.inputs and node.inputs[0] else ""
        largest = self._amax.get(name or "", 0.0)
        if node.op_type in _SUMS:
            before, after = (math.prod(self._sizes[x]) for x in (name, node.outputs[0].name))
            return largest * max(1, before // max(1, after))
        tanh = node.attributes.get_string("approximate") == "tanh"
        return largest**3 if node.op_type == "Gelu" and tanh else 0.0

    def ports(self, kept: Mapping[str, Kept]) -> dict[str, tuple[list[str], list[str]]]:
        """The inputs and outputs, by node, that become narrower."""
        float32 = {*kept, *self._pixels}
        return {
            node.name or "": self._ports(node) for node in self._graph if node.name not in float32
        }

    def _ports(self, node: ir.Node, opset: int = 0) -> tuple[list[str], list[str]]:
        """The float inputs and outputs of `node` that ONNX lets be narrow; none without inputs.

        In `opset`, by default the graph's.
        """
        typed = any(node.attributes.get_int(x) == ir.DataType.FLOAT for x in _DTYPE_ATTRIBUTES)
        if typed or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            return [], []
        try:
            opset = opset or self._graph.opset_imports[node.domain]
            schema = defs.get_schema(node.op_type, opset, node.domain)
        except defs.SchemaError:
            return [], []
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

        def halvable(
            ports: Sequence[ir.Value | None], formals: Sequence[defs.OpSchema.FormalParameter]
        ) -> list[str]:
            kinds = [formals[min(i, len(formals) - 1)].type_str for i in range(len(ports))]
            return [
                value.name
                for value, kind in zip(ports, kinds, strict=True)
                if value is not None
                and value.name in self._floats
                and f"tensor({self._kind.name.lower()})" in allowed.get(kind, [kind])
            ]

        inputs = halvable(node.inputs, schema.inputs)
        return (inputs, halvable(node.outputs, schema.outputs)) if inputs else ([], [])

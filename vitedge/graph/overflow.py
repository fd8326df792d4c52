"""Which operators of an FP32 graph would leave float16's range, as measured on images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from vitedge.core.errors import InputError
from vitedge.graph.run import Progress, tapped

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
    """What is known of every float tensor, and what that means for every operator."""

    def __init__(
        self,
        model: ModelProto,
        fp32: Path,
        spelled_out: set[str],
        sizes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._model, self._fp32, self._sizes = model, fp32, sizes
        self._spelled_out = spelled_out
        self._opsets = {
            "" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import
        }
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        names = [name for node in model.graph.node for name in node.output if name]
        types = dict(zip(names, tapped(model, fp32, names).types, strict=True))
        self._activations = [name for name in names if types[name] == FLOAT]
        weights = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
        self._floats = {*self._activations, *weights}
        self._amax = {name: self._weight_amax(name) for name in weights}
        self._pixels = self._preprocessing()

    def _weight_amax(self, name: str) -> float:
        value = numpy_helper.to_array(self._stored[name], str(self._fp32.parent))
        return float(np.abs(value).max(initial=0.0))

    def _preprocessing(self) -> set[str]:
        """The nodes that make normalised pixels of the image: what comes before all else."""
        pixels, names = {self._model.graph.input[0].name}, set()
        for node in self._model.graph.node:
            others = [name for name in node.input if name not in self._stored]
            if node.op_type in _PIXEL_OPS and others and set(others) <= pixels:
                pixels.update(node.output)
                names.add(node.name)
        return names

    def measure(self, batches: Iterator[NDArray[np.uint8]], total: int, progress: Progress) -> None:
        """Take max|x| of every activation; two numbers an activation are kept of a run."""
        nodes, outputs = [], []
        for name in self._activations:
            for op in ("ReduceMax", "ReduceMin"):
                outputs.append(f"{name}/{op}")
                nodes.append(helper.make_node(op, [name], [outputs[-1]], keepdims=0))
        run = tapped(self._model, self._fp32, outputs, tuple(nodes), often=True)
        seen = 0
        amax = np.zeros(len(self._activations))
        for images, values in run.stream(batches):
            extremes = np.abs(np.array(values, np.float64)).reshape(-1, 2)
            amax = np.maximum(amax, extremes.max(axis=1))  # keeps NaN
            seen += len(images)
            progress("looking for overflow", seen, total)
        for name, largest in zip(self._activations, amax.tolist(), strict=True):
            if not np.isfinite(largest):
                raise InputError(
                    f"activation '{name}' is NaN or infinite on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                )
            self._amax[name] = largest

    def largest(self) -> tuple[float, str]:
        """The largest activation but pixels, and the node it comes from."""
        maxima = [
            (self._amax[name], node.name)
            for node in self._model.graph.node
            if node.name not in self._pixels
            for name in node.output
            if name in self._amax
        ]
        return max(maxima, default=(0.0, ""))

    def keep(self, limit: float) -> dict[str, str]:
        """The nodes that stay in float32 so that nothing in float16 exceeds `limit`, and why."""
        reasons = {}
        for node in self._model.graph.node:
            calculates = any(name in self._floats for name in node.input)
            if calculates and node.name not in self._pixels and (why := self._why(node, limit)):
                reasons[node.name] = why
        return reasons

    def _why(self, node: NodeProto, limit: float) -> str:
        if node.name in self._spelled_out:
            return SPELLED_OUT
        if not any(self._ports(node)):
            return "has no float16 form"
        if node.op_type in _SQUARES:
            return "adds up squares inside"
        for name in (*node.input, *node.output):
            largest = self._amax.get(name, 0.0)
            if name in self._stored:
                if node.op_type in _QUANTIZERS:
                    continue
                if largest > FP16_MAX:
                    return f"its constant '{name}' reaches {largest:.3g}"
                if 0 < largest < FP16_NORMAL:
                    return f"its constant '{name}', {largest:.3g}, is too small for float16"
            elif largest > limit:
                return f"'{name}' reaches {largest:.4g}"
        inside = self._inside(node)
        return f"reaches {inside:.3g} inside" if inside > limit else ""

    def _inside(self, node: NodeProto) -> float:
        """The largest value a kernel may hold between input and output, where that is larger."""
        largest = self._amax.get(node.input[0], 0.0) if node.input else 0.0
        if node.op_type in _SUMS:
            before, after = (math.prod(self._sizes[x]) for x in (node.input[0], node.output[0]))
            return largest * max(1, before // max(1, after))
        tanh = any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute)
        return largest**3 if node.op_type == "Gelu" and tanh else 0.0

    def ports(self, kept: Mapping[str, str]) -> dict[str, tuple[list[str], list[str]]]:
        """The inputs and outputs, by node, that become float16."""
        float32 = {*kept, *self._pixels}
        return {n.name: self._ports(n) for n in self._model.graph.node if n.name not in float32}

    def _ports(self, node: NodeProto) -> tuple[list[str], list[str]]:
        """The float inputs and outputs of `node` that ONNX lets be float16; none without inputs."""
        for attribute in node.attribute:
            typed = attribute.name in _DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT
            if typed or attribute.type == AttributeProto.GRAPH:
                return [], []
        try:
            domain = "" if node.domain == "ai.onnx" else node.domain
            schema = defs.get_schema(node.op_type, self._opsets[domain], domain)
        except defs.SchemaError:
            return [], []
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

        def halvable(names: list[str], formals: list[defs.OpSchema.FormalParameter]) -> list[str]:
            kinds = [formals[min(i, len(formals) - 1)].type_str for i in range(len(names))]
            return [
                name
                for name, kind in zip(names, kinds, strict=True)
                if name in self._floats and "tensor(float16)" in allowed.get(kind, [kind])
            ]

        inputs = halvable(list(node.input), list(schema.inputs))
        if not inputs:
            return [], []
        return inputs, halvable(list(node.output), list(schema.outputs))

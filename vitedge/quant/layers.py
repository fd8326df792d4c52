"""What INT8 costs each layer: its own rounding, and what has gathered by then.

Sums leave the graph, tensors do not: memory stays that of a few layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, compose, helper, numpy_helper

from vitedge.core.errors import SharedError
from vitedge.core.manifest import Figures
from vitedge.core.numerics import fill_batch, sqnr_db
from vitedge.graph.macs import contracted
from vitedge.graph.run import Runner
from vitedge.graph.structure import MOVES
from vitedge.quant import e4m3

INT8 = "int8:"
"""Prefix of the INT8 graph's names beside the FP32 graph's."""
HALF_STEP = 0.51
"""Steps that rounding alone can be off, and float's own rounding."""
FP8_HALF_STEP = HALF_STEP * float(e4m3.spacing(np.array(e4m3.LARGEST)))
"""Likewise of E4M3, where the steps are widest."""
_SUMS = ("signal", "own_noise", "noise", "clipped", "seen", "macs")
"""Of each layer, and one number more: noise over signal of a run's worst token, of own rounding."""


def examine(
    fp32: Path, int8: Path, nodes: Sequence[str], images: NDArray[np.uint8]
) -> dict[str, Figures]:
    """Measure the `nodes` of the ONNX file `fp32`, which `int8` is the QDQ version of.

    Those inside an If or a loop are left out.

    `images` is (k, H, W, 3). Both graphs run as they are written, each operator in float between
    Q and DQ, so the machine's own INT8 kernels do not matter. Raises InputError where a layer's
    output is NaN or infinite.
    """
    path = fp32.with_name("examined.onnx")  # shares fp32's external data
    data = path.with_name(f"{path.name}.data")
    batch, scales = _write(fp32, int8, nodes, path)
    nodes = list(scales)
    try:
        run = Runner(path, as_written=True)
        filled = fill_batch(images, batch)
        runs = [run(filled[i : i + batch])[0] for i in range(0, len(filled), batch)]
    finally:
        path.unlink()
        data.unlink(missing_ok=True)
    measured = np.array(runs, np.float64).reshape(len(runs), len(nodes), len(_SUMS) + 1)
    sums, worst = measured[..., :-1].sum(axis=0), measured[..., -1].max(axis=0)
    figures = {}
    for node, row, ratio in zip(nodes, sums, worst, strict=True):
        signal, own_noise, noise, clipped, seen, macs = row.tolist()
        if not math.isfinite(signal + own_noise + noise):
            raise SharedError(
                f"the output of layer '{node}' is NaN or infinite",
                fix="check the weights and the preprocessing",
            )
        signal = max(signal, 1e-30)  # silent, but with noise: the worst, not none
        activation_scales, weight_scales = scales[node]
        quantized = bool(activation_scales or weight_scales)
        figures[node] = Figures(
            activation_scales=activation_scales,
            weight_scales=weight_scales,
            clipped_share=clipped / seen if activation_scales else None,
            sqnr_db=sqnr_db(signal, own_noise) if quantized else None,
            token_sqnr_db=sqnr_db(1.0, ratio) if quantized else None,
            accumulated_sqnr_db=sqnr_db(signal, noise),
            macs=round(macs / len(filled)),
        )
    return figures


_Scales = tuple[tuple[float, ...], tuple[float, float] | None]
"""Of a layer's activations, and the range of its weight's."""


def _write(
    fp32: Path, int8: Path, nodes: Sequence[str], path: Path
) -> tuple[int, dict[str, _Scales]]:
    """Write both graphs as one that puts out sums; returns its batch size and all scales."""
    model = onnx.load(fp32, load_external_data=False)
    graph = model.graph
    other = onnx.load(int8)
    compose.add_prefix(other, INT8, rename_inputs=False, inplace=True)
    values = (*graph.value_info, *graph.output)
    tokens = {value.name for value in values if len(value.type.tensor_type.shape.dim) == 3}
    meter = _Meter(graph, other.graph, tokens)
    by_name = {node.name: node for node in graph.node}
    for name in nodes:
        if name in by_name:
            meter.measure(by_name[name])
    meter.gather()
    # ONNX Runtime starts at the output and, of a node's inputs, makes the one that stands last in
    # the file first: what only dequantizes weights comes first, else every weight would be in
    # memory as float before the first layer
    stored = {tensor.name for tensor in other.graph.initializer}
    merged = [*graph.node, *other.graph.node, *meter.nodes]
    merged.sort(key=lambda n: n.op_type != "DequantizeLinear" or n.input[0] not in stored)
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(merged)
    graph.initializer.extend([*other.graph.initializer, *meter.tensors])
    graph.output.append(helper.make_empty_tensor_value_info(meter.total))
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
    return batch, meter.scales


def equation_of(einsum: NodeProto) -> str:
    """The equation of an Einsum."""
    equation: bytes = next(a.s for a in einsum.attribute if a.name == "equation")
    return equation.decode().replace(" ", "")


class _Meter:
    """Adds, beside two graphs, the nodes that measure how far apart they are."""

    def __init__(self, graph: GraphProto, int8: GraphProto, tokens: Set[str]) -> None:
        """`tokens` are the tensors (n, N, C) of the FP32 `graph`."""
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.scales: dict[str, _Scales] = {}
        self.total = ""
        self._rows: list[list[str]] = []
        self._tokens = tokens
        self._computed = {name for node in graph.node for name in node.output}
        self._dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._int8 = {tensor.name: tensor for tensor in int8.initializer}
        self._makers = {name: node for node in int8.node for name in node.output}
        self._nothing = self._constant(np.zeros(1, np.float32))
        self._last = self._constant(np.array([-1], np.int64))

    def measure(self, node: NodeProto) -> None:
        """Add the sums of one layer of the FP32 graph to the total."""
        output = next(filter(None, node.output))
        twin = self._makers[INT8 + output]
        rest = None
        if twin.name == f"{INT8}{node.name}/Sum":  # of a coarse product and one of the rest
            twin, rest = (self._makers[name] for name in twin.input)
        inputs = list(node.input)
        activation_scales: list[float] = []
        weight_scales = None
        clipped, seen = [], []
        for index, name in enumerate(twin.input[:2]):
            dequantize = self._unmoved(name)
            if dequantize is None:
                continue
            is_stored = self._is_stored(dequantize)
            if dequantize.op_type != "DequantizeLinear" and not is_stored:
                continue
            scale = dequantize.input[1]
            steps = numpy_helper.to_array(self._int8[scale])
            if is_stored or dequantize.input[0] in self._int8:
                inputs[index] = name
                weight_scales = (float(steps.min()), float(steps.max()))
                continue
            activation_scales.append(float(steps))
            values = self._smoothed(node.input[index], dequantize)
            integers = self._add("QuantizeLinear", values, *dequantize.input[1:])
            inputs[index] = self._add("DequantizeLinear", integers, *dequantize.input[1:])
            if rest is not None:
                inputs[index] = self._with_rest(values, inputs[index], rest)
            distance = self._add("Abs", self._add("Sub", values, inputs[index]))
            is_fp8 = self._int8[dequantize.input[2]].data_type == TensorProto.FLOAT8E4M3FN
            half_step = FP8_HALF_STEP if is_fp8 else HALF_STEP
            limit = self._constant(np.float32(half_step * steps))
            beyond = self._float(self._add("Greater", distance, limit))
            clipped.append(self._add("ReduceSum", beyond, keepdims=0))
            seen.append(self._size(node.input[index]))
        own_noise = worst = self._nothing
        if activation_scales or weight_scales:
            shadow = NodeProto.FromString(node.SerializeToString())
            shadow.name, shadow.output[0] = self._name(), self._name()
            shadow.input[:] = inputs
            self.nodes.append(shadow)
            own_noise = self._noise(output, shadow.output[0])
            if output in self._tokens:
                worst = self._worst(output, shadow.output[0])
        sums = (
            self._add("ReduceSumSquare", output, keepdims=0),
            own_noise,
            self._noise(output, INT8 + output),
            self._added(clipped),
            self._added(seen),
            self._macs(node, output),
            worst,
        )
        self._rows.append([self._add("Reshape", value, self._last) for value in sums])
        self.scales[node.name] = tuple(activation_scales), weight_scales

    def _with_rest(self, value: str, coarse: str, rest: NodeProto) -> str:
        """What INT8 holds of `value` in two parts: `coarse`, and what that leaves, quantized."""
        quantizer = self._makers[rest.input[0]].input[1:]
        left = self._add("Sub", value, coarse)
        fine = self._add("QuantizeLinear", left, *quantizer)
        return self._add("Add", coarse, self._add("DequantizeLinear", fine, *quantizer))

    def gather(self) -> None:
        """Put the sums of all layers into `total`, one layer after another: so they run, too."""
        for flat in self._rows:
            self.total = self._add("Concat", *filter(None, [self.total]), *flat, axis=0)

    def _unmoved(self, name: str) -> NodeProto | None:
        """The node that makes the tensor `name` of the INT8 graph, before its axes are moved."""
        node = self._makers.get(name)
        while node is not None and node.op_type in MOVES:
            node = self._makers.get(node.input[0])
        return node

    def _smoothed(self, name: str, dequantize: NodeProto) -> str:
        """The activation `name` of the FP32 graph as `dequantize` has it: times a constant that
        its weights are divided by, where the INT8 graph puts one before its QuantizeLinear.
        """
        quantize = self._makers[dequantize.input[0]]
        mul = self._makers.get(quantize.input[0])
        is_apart = mul is not None and mul.output[0].removeprefix(INT8) not in self._computed
        if mul is None or mul.op_type != "Mul" or not is_apart or mul.input[1] not in self._int8:
            return name
        return self._add("Mul", name, mul.input[1])

    def _is_stored(self, scale: NodeProto) -> bool:
        """Whether the node `scale` gives a weight its scales that a Cast makes float."""
        cast = self._makers.get(scale.input[0]) if scale.op_type == "Mul" else None
        stored = self._int8.get(cast.input[0]) if cast and cast.op_type == "Cast" else None
        return stored is not None and stored.data_type == TensorProto.INT8

    def _macs(self, node: NodeProto, output: str) -> str:
        """Multiply-accumulates of one run of a layer."""
        counted, depth = output, [self._dim(node.input[0], -1)]
        if node.op_type == "Einsum":
            depth = [self._dim(node.input[i], axis) for i, axis in contracted(equation_of(node))]
        elif node.op_type in ("LSTM", "GRU", "RNN"):  # every value of W and R, for each input row
            counted = node.input[0]
            matrices = self._add("Add", *(self._size(name) for name in node.input[1:3]))
            depth = [self._add("Div", matrices, depth[0])]
        elif node.op_type == "ConvTranspose":  # each input value meets each weight of its channel
            counted, channel = node.input[0], self._dim(node.input[1], 0)
            depth = [self._add("Div", self._size(node.input[1]), channel)]
        elif dims := self._dims.get(node.input[1]):
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            contracted_dims = (
                dims[1:]
                if node.op_type == "Conv"
                else dims[-1:]
                if transposed
                else dims[-2:-1] or dims
            )
            depth = [self._constant(np.float32(math.prod(contracted_dims)))]
        macs = self._size(counted)
        for factor in depth:
            macs = self._add("Mul", macs, factor)
        return macs

    def _size(self, name: str) -> str:
        return self._float(self._add("Size", name))

    def _dim(self, name: str, axis: int) -> str:
        index = self._constant(np.array([axis], np.int64))
        return self._float(self._add("Gather", self._add("Shape", name), index, axis=0))

    def _noise(self, want: str, got: str) -> str:
        return self._add("ReduceSumSquare", self._add("Sub", want, got), keepdims=0)

    def _worst(self, want: str, got: str) -> str:
        """Noise over signal of the worst token of (n, N, C); one of no signal has no noise."""
        axes = self._constant(np.array([0, 2], np.int64))
        difference = self._add("Sub", want, got)
        signal, noise = (
            self._add("ReduceSum", self._add("Mul", name, name), axes, keepdims=0)
            for name in (want, difference)
        )
        silent = self._constant(np.float32(1e-20))
        counted = self._add("Mul", noise, self._float(self._add("Greater", signal, silent)))
        ratios = self._add("Div", counted, self._add("Max", signal, silent))
        return self._add("ReduceMax", ratios, keepdims=0)

    def _float(self, name: str) -> str:
        return self._add("Cast", name, to=TensorProto.FLOAT)

    def _added(self, names: Sequence[str]) -> str:
        return self._add("Sum", *names) if names else self._nothing

    def _name(self) -> str:
        return f"examined:{len(self.nodes) + len(self.tensors)}"

    def _constant(self, value: NDArray[Any] | np.generic) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value), self._name()))
        return str(self.tensors[-1].name)

    def _add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = self._name()
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

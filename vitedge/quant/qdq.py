"""Post-training quantization: an FP32 ONNX graph and images into a symmetric INT8 or FP8 QDQ graph.

NNCF's ONNX path does the same job in twice the time and memory; `benchmarks/` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from vitedge.core.manifest import Layer
from vitedge.core.spec import INT4_OPSET
from vitedge.graph.constants import read_names
from vitedge.graph.run import Progress
from vitedge.quant import policy
from vitedge.quant.kernels import bias_of, readers_of
from vitedge.quant.parameters import Calibrated, Integers
from vitedge.quant.placement import Placement, Weight, place
from vitedge.quant.weights import quantize_weight, to_integers

IN_TWO = "reads its input in two parts, coarse and rest: one scale ruins its smallest tokens"
TINY = 1e-30
BIAS_LEVELS = 2.0**24
"""Steps of an INT32 bias, at most: what float32 tells apart."""


def quantize(
    calibrated: Calibrated, progress: Progress, in_float: Mapping[str, str]
) -> tuple[ModelProto, list[Layer]]:
    """The QDQ model, weights inside, and what was decided for every layer.

    The nodes in `in_float` stay so, for the reason given. FP32 weights are read one at a time.
    """
    layers = [
        policy.in_float(layer, in_float[layer.node]) if layer.node in in_float else layer
        for layer in calibrated.layers
    ]
    layers = [
        msgspec.structs.replace(layer, why=IN_TWO)
        if layer.node in calibrated.in_two and layer.quantized
        else layer
        for layer in layers
    ]
    model = onnx.load(calibrated.path, load_external_data=False)
    graph = model.graph
    placed = place(graph, calibrated, {layer.node: layer for layer in layers})
    emitter = _Emitter(model, calibrated, placed)
    done = 0
    shifts = _bias_shifts(graph, calibrated, placed)
    for node in graph.node:
        if node.name in shifts:
            emitter.shift_bias(node, *shifts[node.name])
        if node.name in placed.reads:
            emitter.read_quantized(node)
            done += 1
            progress("quantizing", done, len(placed.reads))
        elif node.op_type == "Add":
            emitter.keep_bias_apart(node)
        elif node.op_type == "LayerNormalization" and calibrated.target.floats == "fp32":
            emitter.keep_shift(node)
        emitter.nodes.append(node)
        if node.name in calibrated.in_two and node.name in placed.reads:
            emitter.add_rest(node)
    used = read_names(emitter.nodes) | {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(emitter.nodes)
    graph.initializer.extend([*tensors, *emitter.tensors])
    load_external_data_for_model(model, str(calibrated.path.parent))
    return model, layers


class _Emitter:
    """Collects the nodes and tensors of the QDQ graph; each tensor is quantized once."""

    def __init__(self, model: ModelProto, calibrated: Calibrated, placed: Placement) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._calibrated, self._placed = calibrated, placed
        opset = model.opset_import[0].version
        self._int4 = calibrated.settings.weight_bits == 4 and opset >= INT4_OPSET
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._folder = str(calibrated.path.parent)
        self._ranks = {
            value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info
        }
        self._steps: dict[str, NDArray[np.float32]] = {}  # of weights
        self._floors: dict[str, NDArray[np.float32]] = {}  # of those, where a bias must fit INT32
        for node in model.graph.node:
            if node.name in placed.outputs and (bias := bias_of(node)):
                source, weight = (placed.reads[node.name][index] for index in (0, 1))
                scale = placed.activations[source].scale
                steps = (np.abs(self._value(bias)) / (BIAS_LEVELS * scale)).astype(np.float32)
                self._floors[weight] = np.maximum(self._floors.get(weight, steps), steps)
        self._products: set[str] = set()  # outputs of MatMuls with a quantized weight
        self._done: set[str] = set()

    def read_quantized(self, node: NodeProto) -> None:
        """Let `node` read what is placed for it; Q/DQ come before its first reader."""
        for index, name in self._placed.reads[node.name].items():
            is_weight = name in self._placed.weights
            if name not in self._done:
                (self._weight if is_weight else self._activation)(name)
                self._done.add(name)
            if is_weight and node.op_type == "MatMul" and not self._placed.weights[name].stored:
                self._products.add(node.output[0])
            node.input[index] = f"{name}.dequantized"
        if node.name in self._placed.outputs and bias_of(node):
            node.input[2] = self._bias(node)

    def add_rest(self, node: NodeProto) -> None:
        """Add to what `node` gives the product of what the integers it reads leave of its input."""
        source, output = self._placed.reads[node.name][0], node.output[0]
        rest, quantizer = f"{source}.rest", self._placed.activations[source]
        if rest not in self._done:
            self._done.add(rest)
            self._add("Sub", [source, f"{source}.dequantized"], rest, f"{source}/Rest")
            self._placed.activations[rest] = quantizer.of_rest
            self._activation(rest)
        node.output[0] = f"{output}.coarse"
        inputs = [f"{rest}.dequantized", node.input[1]]
        self._add("MatMul", inputs, f"{output}.fine", f"{node.name}/Rest")
        self._add("Add", [node.output[0], f"{output}.fine"], output, f"{node.name}/Sum")

    def shift_bias(self, node: NodeProto, index: int, shift: NDArray[np.float32]) -> None:
        """Add `shift`, (channels,), to the bias that is an input of `node`, or give it that."""
        name = f"{node.output[0]}.corrected_bias"
        has_bias = index < len(node.input) and node.input[index]
        values = self._value(node.input[index]) + shift if has_bias else shift
        if not has_bias:
            node.input.extend([""] * (index + 1 - len(node.input)))
        node.input[index] = self._store(name, values.astype(np.float32))
        self._stored[name] = self.tensors[-1]

    def keep_bias_apart(self, add: NodeProto) -> None:
        """Give the bias of a quantized MatMul its product's rank: (N,) -> (1, 1, N).

        ONNX Runtime merges MatMul and a rank-1 Add into a Gemm before it looks for Q/DQ, and
        has no INT8 Gemm with a float bias: the whole layer would fall back to float.
        """
        for index, other in ((0, 1), (1, 0)):
            product, bias = add.input[index], self._stored.get(add.input[other])
            rank = self._ranks.get(product, 0) if product in self._products else 0
            if rank >= 3 and bias is not None and len(bias.dims) == 1:
                values = self._value(bias.name).reshape((1,) * (rank - 1) + (-1,))
                add.input[other] = self._store(f"{add.output[0]}.bias", values)

    def keep_shift(self, norm: NodeProto) -> None:
        """Make a LayerNorm's β tiny where it is zero or absent.

        OpenVINO 2026.4 drops such a β, takes γ through a mean over tokens, and loses it before
        Q/DQ.
        """
        shift = norm.input[2] if len(norm.input) > 2 else ""
        if norm.input[1] not in self._stored or (shift and shift not in self._stored):
            return
        if not shift or not self._value(shift).any():
            tiny = np.full_like(self._value(norm.input[1]), TINY)
            norm.input[:] = [*norm.input[:2], self._store(f"{norm.output[0]}.shift", tiny)]

    def _bias(self, node: NodeProto) -> str:
        """The bias of a layer that puts out integers, as INT32 in steps of its products."""
        source, weight = self._placed.reads[node.name][0], self._placed.reads[node.name][1]
        steps = (self._placed.activations[source].scale * self._steps[weight]).astype(np.float32)
        name = f"{node.output[0]}.bias"
        values = np.rint(self._value(node.input[2]) / steps.astype(np.float64))
        self._store(f"{name}.quantized", values.astype(np.int32))
        self._store(f"{name}.scale", steps)
        parts = [f"{name}.quantized", f"{name}.scale"]
        self._dequantize(name, parts, axis=0)
        return f"{name}.dequantized"

    def _activation(self, name: str) -> None:
        """Quantize and dequantize an activation."""
        quantizer = self._placed.activations[name]
        parts = (("scale", quantizer.scale), ("zero", quantizer.stored_zero))
        step = [self._store(f"{name}.{part}", value) for part, value in parts]
        integers = f"{name}.quantized"
        self._add("QuantizeLinear", [name, *step], integers, f"{name}/Quantize")
        self._dequantize(name, [integers, *step])

    def _weight(self, name: str) -> None:
        """Store a weight as integers with a scale for each channel, and dequantize it."""
        placed = self._placed.weights[name]
        weight = self._value(name).astype(np.float32)
        integers: NDArray[Any]
        integers, scales = weight_integers(self._calibrated, name, placed, weight)
        if name in self._floors and (scales < self._floors[name]).any():
            scales = np.maximum(scales, self._floors[name])
            integers = to_integers(weight, scales, placed.axis, placed.qmax, placed.pair_safe)
        self._steps[name] = scales
        if placed.stored:
            self._store_weight(name, placed.axis, integers, scales)
            return
        if self._int4:
            integers = integers.astype(helper.tensor_dtype_to_np_dtype(TensorProto.INT4))
        zeros = np.zeros(len(scales), integers.dtype)
        parts = {"quantized": integers, "scale": scales, "zero": zeros}
        names = [self._store(f"{name}.{part}", value) for part, value in parts.items()]
        self._dequantize(name, names, axis=placed.axis)

    def _store_weight(
        self, name: str, axis: int, integers: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> None:
        """Integers that a Cast and a Mul make float: ONNX Runtime does that when it loads them.

        A DequantizeLinear it keeps for the INT8 kernels that it hopes for, and runs every time.
        """
        broadcast = [-1 if index == axis else 1 for index in range(integers.ndim)]
        stored = self._store(f"{name}.quantized", integers)
        steps = self._store(f"{name}.scale", scales.reshape(broadcast))
        self._add("Cast", [stored], f"{name}.cast", f"{name}/Cast", to=TensorProto.FLOAT)
        self._add("Mul", [f"{name}.cast", steps], f"{name}.dequantized", f"{name}/Scale")

    def _dequantize(self, name: str, inputs: list[str], **axis: Any) -> None:
        self._add("DequantizeLinear", inputs, f"{name}.dequantized", f"{name}/Dequantize", **axis)

    def _add(self, op: str, inputs: list[str], output: str, name: str, **axis: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name, **axis))

    def _value(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._stored[name], self._folder)

    def _store(self, name: str, value: NDArray[Any]) -> str:
        self.tensors.append(numpy_helper.from_array(value, name))
        return name


def _bias_shifts(
    graph: GraphProto, calibrated: Calibrated, placed: Placement
) -> dict[str, tuple[int, NDArray[np.float32]]]:
    """By node, which of its inputs is the bias of a layer in INT8, and what is added to it.

    The bias of a MatMul is a constant of the Add after it; where there is none it has no bias.
    """
    readers, constants = readers_of(graph), {tensor.name for tensor in graph.initializer}
    shifts = {}
    for node in graph.node:
        if node.name not in calibrated.bias_shifts or node.name not in placed.reads:
            continue
        shift = calibrated.bias_shifts[node.name]
        if node.op_type != "MatMul":
            if bias_of(node) in ("", *constants):
                shifts[node.name] = 2, shift
            continue
        users = readers[node.output[0]]
        if [user.op_type for user in users] == ["Add"]:
            index = 1 - list(users[0].input).index(node.output[0])
            if users[0].input[index] in constants:
                shifts[users[0].name] = index, shift
    return shifts


def rescale_biases(graph: GraphProto) -> None:
    """Put biases in INT32 right, in place, where the scales of activations were replaced."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        bias = makers.get(bias_of(node)) if node.op_type == "Conv" else None
        if bias is None or bias.op_type != "DequantizeLinear":
            continue
        integers, old = (numpy_helper.to_array(stored[name]) for name in bias.input[:2])
        source, weight = (
            numpy_helper.to_array(stored[makers[name].input[1]]) for name in node.input[:2]
        )
        steps = (source * weight).astype(np.float32)
        limits = np.iinfo(np.int32)
        values = np.rint(integers * (old / steps.astype(np.float64)))
        for name, value in zip(
            bias.input[:2],
            (np.clip(values, limits.min, limits.max).astype(np.int32), steps),
            strict=True,
        ):
            stored[name].CopyFrom(numpy_helper.from_array(value, name))


def quantizers(calibrated: Calibrated) -> tuple[Placement, dict[str, NDArray[np.float32]]]:
    """What `quantize` writes, to be trained on: the quantizers, and the scales of every weight."""
    path = calibrated.path
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    placed = place(graph, calibrated, {layer.node: layer for layer in calibrated.layers})
    scales = {}
    for name, weight in placed.weights.items():
        value = numpy_helper.to_array(stored[name], str(path.parent)).astype(np.float32)
        _, scales[name] = weight_integers(calibrated, name, weight, value)
    return placed, scales


def weight_integers(
    calibrated: Calibrated, name: str, placed: Weight, weight: NDArray[np.float32]
) -> Integers:
    """The weight called `name` as it is stored, and its scales."""
    if name in calibrated.integers:
        return calibrated.integers[name]
    if name in calibrated.learned.weights:
        scales = calibrated.learned.weights[name]
        return to_integers(weight, scales, placed.axis, placed.qmax, placed.pair_safe), scales
    return quantize_weight(
        weight,
        placed.axis,
        calibrated.settings.weights,
        qmax=placed.qmax,
        pair_safe=placed.pair_safe,
        floats=calibrated.target.floats,
        fp8=placed.fp8,
    )

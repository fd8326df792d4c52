"""Post-training quantization: an FP32 ONNX graph and images into a symmetric INT8 QDQ graph.

NNCF's ONNX path does the same job in twice the time and memory; `benchmarks/` compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vitedge.core.manifest import Layer
from vitedge.core.spec import INT4_OPSET
from vitedge.graph.run import Progress
from vitedge.quant.parameters import Calibrated
from vitedge.quant.placement import Placement, Weight, place
from vitedge.quant.weights import quantize_weight, to_integers

TINY = 1e-30


def quantize(
    calibrated: Calibrated, progress: Progress, in_float: Mapping[str, str]
) -> tuple[ModelProto, list[Layer]]:
    """The QDQ model, weights inside, and what was decided for every layer.

    The nodes in `in_float` stay so, for the reason given.
    """
    layers = [
        msgspec.structs.replace(layer, quantized=False, why=in_float[layer.node])
        if layer.node in in_float
        else layer
        for layer in calibrated.layers
    ]
    model = onnx.load(calibrated.path, load_external_data=False)
    _rewrite(
        model, calibrated, {layer.node: layer for layer in layers if layer.quantized}, progress
    )
    return model, layers


class _Emitter:
    """Collects the nodes and tensors of the QDQ graph; each tensor is quantized once."""

    def __init__(self, calibrated: Calibrated, placed: Placement, opset: int) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._calibrated, self._placed = calibrated, placed
        self._int4 = calibrated.settings.weight_bits == 4 and opset >= INT4_OPSET
        self._done: dict[str, str] = {}

    def activation(self, name: str) -> str:
        """Insert Q/DQ after the activation `name`; returns the dequantized name."""
        if name not in self._done:
            quantizer = self._placed.activations[name]
            stored = TensorProto.UINT8 if quantizer.unsigned else TensorProto.INT8
            zero = helper.make_tensor(f"{name}.zero", stored, [], [quantizer.zero])
            self._pair(name, quantizer.scale, zero)
            self._done[name] = f"{name}.dequantized"
        return self._done[name]

    def _pair(self, name: str, scale: NDArray[np.float32], zero: TensorProto) -> None:
        self.tensors += [numpy_helper.from_array(scale, f"{name}.scale"), zero]
        step = [f"{name}.scale", f"{name}.zero"]
        self.nodes += [
            helper.make_node(
                "QuantizeLinear", [name, *step], [f"{name}.quantized"], f"{name}/Quantize"
            ),
            helper.make_node(
                "DequantizeLinear",
                [f"{name}.quantized", *step],
                [f"{name}.dequantized"],
                f"{name}/Dequantize",
            ),
        ]

    def weight(self, name: str, weight: NDArray[np.float32]) -> str:
        """Store `weight` as integers with a scale for each channel, dequantized once."""
        if name not in self._done:
            placed = self._placed.weights[name]
            integers: NDArray[Any]
            integers, scales = weight_integers(self._calibrated, name, placed, weight)
            if self._int4:
                integers = integers.astype(helper.tensor_dtype_to_np_dtype(TensorProto.INT4))
            parts: dict[str, NDArray[Any]] = {
                "quantized": integers,
                "scale": scales,
                "zero": np.zeros(len(scales), integers.dtype),
            }
            self.tensors += [
                numpy_helper.from_array(value, f"{name}.{part}") for part, value in parts.items()
            ]
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{name}.{part}" for part in parts],
                    [f"{name}.dequantized"],
                    f"{name}/Dequantize",
                    axis=placed.axis,
                )
            )
            self._done[name] = f"{name}.dequantized"
        return self._done[name]


def quantizers(calibrated: Calibrated) -> tuple[Placement, dict[str, NDArray[np.float32]]]:
    """What `quantize` writes, to be trained on: the quantizers, and the scales of every weight."""
    path = calibrated.path
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    placed = place(graph, calibrated, {n.node: n for n in calibrated.layers if n.quantized})
    scales = {}
    for name, weight in placed.weights.items():
        value = numpy_helper.to_array(stored[name], str(path.parent)).astype(np.float32)
        _, scales[name] = weight_integers(calibrated, name, weight, value)
    return placed, scales


def weight_integers(
    calibrated: Calibrated, name: str, placed: Weight, weight: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The weight called `name` as INT8, shaped as it is, and its scales, (channels,)."""
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
    )


def _rewrite(
    model: ModelProto,
    calibrated: Calibrated,
    layers: Mapping[str, Layer],
    progress: Progress,
) -> None:
    """Turn `model`, in place, into the QDQ graph; FP32 weights are read one at a time."""
    graph, folder = model.graph, calibrated.path.parent
    stored = {tensor.name: tensor for tensor in graph.initializer}
    placed = place(graph, calibrated, layers)
    emitter = _Emitter(calibrated, placed, model.opset_import[0].version)
    biased: dict[str, int] = {}  # output of a quantized MatMul -> its rank
    ranks = _ranks(graph)
    done = 0
    for node in graph.node:
        if reads := placed.reads.get(node.name):
            for index, name in reads.items():
                if name in placed.activations:
                    node.input[index] = emitter.activation(name)
                    continue
                weight = numpy_helper.to_array(stored[name], str(folder)).astype(np.float32)
                node.input[index] = emitter.weight(name, weight)
                if node.op_type == "MatMul":
                    biased[node.output[0]] = ranks.get(node.output[0], 0)
            done += 1
            progress("quantizing", done, len(layers))
        elif node.op_type == "Add":
            _keep_bias_apart(node, biased, stored, folder, emitter)
        elif node.op_type == "LayerNormalization" and calibrated.target.floats == "fp32":
            _keep_shift(node, stored, folder, emitter)
        emitter.nodes.append(node)
    used = {name for node in emitter.nodes for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for tensor in kept:
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in emitter.nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *emitter.tensors])


def _ranks(graph: GraphProto) -> dict[str, int]:
    """The rank of every tensor whose shape the graph states."""
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in graph.value_info
        if value.type.tensor_type.HasField("shape")
    }


def _keep_bias_apart(
    add: NodeProto,
    biased: Mapping[str, int],
    stored: Mapping[str, TensorProto],
    folder: Path,
    emitter: _Emitter,
) -> None:
    """Give the bias of a quantized MatMul its product's rank: (N,) -> (1, 1, N).

    ONNX Runtime merges MatMul and a rank-1 Add into a Gemm before it looks for Q/DQ, and
    has no INT8 Gemm with a float bias: the whole layer would fall back to float.
    """
    for index, other in ((0, 1), (1, 0)):
        rank = biased.get(add.input[index], 0)
        bias = stored.get(add.input[other])
        if rank >= 3 and bias is not None and len(bias.dims) == 1:
            name = f"{add.output[0]}.bias"
            values = numpy_helper.to_array(bias, str(folder))
            emitter.tensors.append(
                numpy_helper.from_array(values.reshape((1,) * (rank - 1) + (-1,)), name)
            )
            add.input[other] = name


def _keep_shift(
    norm: NodeProto, stored: Mapping[str, TensorProto], folder: Path, emitter: _Emitter
) -> None:
    """Make a LayerNorm's β tiny where it is zero or absent.

    OpenVINO 2026.4 drops such a β, takes γ through a mean over tokens, and loses it before Q/DQ.
    """
    shift = norm.input[2] if len(norm.input) > 2 else ""
    if norm.input[1] not in stored or (shift and shift not in stored):
        return
    if shift and numpy_helper.to_array(stored[shift], str(folder)).any():
        return
    scale = numpy_helper.to_array(stored[norm.input[1]], str(folder))
    name = f"{norm.output[0]}.shift"
    emitter.tensors.append(numpy_helper.from_array(np.full_like(scale, TINY), name))
    norm.input[:] = [*norm.input[:2], name]

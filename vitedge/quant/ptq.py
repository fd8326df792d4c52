"""Post-training quantization: an FP32 ONNX graph and images into a symmetric INT8 QDQ graph.

NNCF's ONNX path does the same job in twice the time and memory; tests/benchmarks compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vitedge.graph.run import Progress
from vitedge.quant.observe import activations
from vitedge.quant.policy import Decision, Role
from vitedge.quant.ranges import QMAX, quantization_step, quantized_levels, stored_scale
from vitedge.quant.settle import Calibrated
from vitedge.quant.weights import PAIR_SUM_MAX, quantize_weight

TINY = 1e-30


def quantize(
    calibrated: Calibrated, progress: Progress, kept: Mapping[str, str]
) -> tuple[ModelProto, list[Decision]]:
    """The QDQ model, weights inside, and the decision for every layer.

    The nodes in `kept` stay in float, for the reason given.
    """
    decisions = [
        replace(d, quantized=False, why=kept[d.node]) if d.node in kept else d
        for d in calibrated.decisions
    ]
    model = onnx.load(calibrated.path, load_external_data=False)
    chosen = {d.node: d for d in decisions if d.quantized}
    _rewrite(model, calibrated, chosen, progress)
    return model, decisions


def activation_scale(calibrated: Calibrated, name: str) -> NDArray[np.float32]:
    """The quantization step of the activation `name`, a scalar."""
    found, settings = calibrated.ranges[name], calibrated.settings
    levels = quantized_levels(found, calibrated.target)
    step = quantization_step(found, settings.activations, levels)
    return stored_scale(np.array(step, np.float32), calibrated.target.floats)


class _Emitter:
    """Collects the nodes and tensors of the QDQ graph; each activation is quantized once."""

    def __init__(self, calibrated: Calibrated, convolved: set[str]) -> None:
        """`convolved` are the activations that a convolution reads."""
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._calibrated, self._target = calibrated, calibrated.target
        self._convolved = convolved
        self._done: dict[str, str] = {}

    def activation(self, name: str) -> str:
        """Insert Q/DQ after the activation `name`; returns the dequantized name."""
        if name not in self._done:
            levels = quantized_levels(self._calibrated.ranges[name], self._target)
            signed = levels == QMAX
            kind = self._target.activations
            unsigned = not signed or kind == "uint8"
            if kind == "mixed":  # OpenVINO 2026.4 convolves int8 wrongly on AVX2
                unsigned = unsigned or name in self._convolved
            zero = 128 if unsigned and signed else 0
            stored = TensorProto.UINT8 if unsigned else TensorProto.INT8
            scale = activation_scale(self._calibrated, name)
            self._pair(name, scale, helper.make_tensor(f"{name}.zero", stored, [], [zero]))
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

    def weight(self, name: str, weight: NDArray[np.float32], axis: int, role: Role) -> str:
        """Store `weight` as INT8 with a scale for each index of `axis`, dequantized once."""
        if name not in self._done:
            safe = self._target.weights == "pair_safe"
            integers, scales = quantize_weight(
                weight,
                axis,
                self._calibrated.settings.weights,
                # a convolution's kernels choose their own order: bound every pair, not neighbours
                qmax=PAIR_SUM_MAX // 2 if safe and role == "conv" else QMAX,
                pair_safe=safe and role == "linear",
                floats=self._target.floats,
            )
            zeros = np.zeros(len(scales), np.int8)
            parts: dict[str, NDArray[Any]]
            parts = {"quantized": integers, "scale": scales, "zero": zeros}
            self.tensors += [
                numpy_helper.from_array(value, f"{name}.{part}") for part, value in parts.items()
            ]
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    [f"{name}.{part}" for part in parts],
                    [f"{name}.dequantized"],
                    f"{name}/Dequantize",
                    axis=axis,
                )
            )
            self._done[name] = f"{name}.dequantized"
        return self._done[name]


def _rewrite(
    model: ModelProto,
    calibrated: Calibrated,
    chosen: Mapping[str, Decision],
    progress: Progress,
) -> None:
    """Turn `model`, in place, into the QDQ graph; FP32 weights are read one at a time."""
    graph, folder = model.graph, calibrated.path.parent
    stored = {tensor.name: tensor for tensor in graph.initializer}
    convolved = {node.input[0] for node in graph.node if node.op_type == "Conv"}
    emitter = _Emitter(calibrated, convolved)
    biased: dict[str, int] = {}  # output of a quantized MatMul -> its rank
    ranks = _ranks(graph)
    done = 0
    for node in graph.node:
        if decision := chosen.get(node.name):
            for index, name in enumerate(activations(node, decision)):
                node.input[index] = emitter.activation(name)
            if decision.role in ("linear", "conv"):
                name = node.input[1]
                weight = numpy_helper.to_array(stored[name], str(folder)).astype(np.float32)
                axis = _output_channel_axis(node, weight.ndim)
                node.input[1] = emitter.weight(name, weight, axis, decision.role)
                if node.op_type == "MatMul":
                    biased[node.output[0]] = ranks.get(node.output[0], 0)
            done += 1
            progress("quantizing", done, len(chosen))
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


def _output_channel_axis(node: NodeProto, ndim: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else ndim - 1


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

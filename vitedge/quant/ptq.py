"""Post-training quantization: an FP32 ONNX graph and images into a symmetric INT8 QDQ graph.

NNCF's ONNX path does the same job in twice the time and memory; tests/benchmarks compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from vitedge.errors import InputError
from vitedge.graph.equalize import Equalized, equalize
from vitedge.graph.run import Runner
from vitedge.quant.policy import Decision, Role, decide
from vitedge.quant.ranges import PAIR_SUM_MAX, QMAX, ActivationRange, quantize_weight
from vitedge.spec import Calibration, Quantization

TINY = 1e-30
Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""


@dataclass(frozen=True)
class Calibrated:
    """An FP32 graph, what a target's dialect makes of it, and the ranges of its activations."""

    path: Path
    """An ONNX file, its weights in external data: equalized where the recipe asks for it."""
    decisions: tuple[Decision, ...]
    ranges: Mapping[str, ActivationRange]
    recipe: Calibration
    target: Quantization
    equalized: Equalized | None


def calibrate(
    fp32: Path,
    batches: Callable[[], Iterator[NDArray[np.uint8]]],
    recipe: Calibration,
    target: Quantization,
    progress: Progress,
) -> Calibrated:
    """Measure what quantizing the ONNX file `fp32` (uint8 NHWC input) takes.

    `batches` starts a stream of calibration images (B, H, W, 3) of the graph's own batch size.
    Raises InputError when an activation is NaN or infinite, or nothing can be quantized.
    """
    equalized = equalize(fp32, batches, recipe.num_samples, progress) if recipe.equalize else None
    path = equalized.path if equalized else fp32
    model = onnx.load(path, load_external_data=False)
    decisions = decide(model.graph, target)
    chosen = {d.node: d for d in decisions if d.quantized}
    if not chosen:
        found = ", ".join(sorted({d.op for d in decisions if d.role in ("linear", "conv")}))
        raise InputError(
            "nothing in this model can be quantized: its operators with weights are "
            f"{found or 'none'}, and the target has INT8 kernels for "
            f"{', '.join(target.operators)}",
            fix="export it with --fp32, or for another target",
        )
    taps = list(
        dict.fromkeys(
            name
            for node in model.graph.node
            if node.name in chosen
            for name in _activations(node, chosen[node.name])
        )
    )
    ranges = collect_ranges(path, model, taps, batches(), recipe.num_samples, progress)
    return Calibrated(path, tuple(decisions), ranges, recipe, target, equalized)


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


def _activations(node: NodeProto, decision: Decision) -> list[str]:
    """The inputs of `node` that are activations."""
    constant_weights = decision.role in ("linear", "conv")
    return list(node.input[:1] if constant_weights else node.input[:2])


def collect_ranges(
    fp32: Path,
    model: ModelProto,
    taps: list[str],
    batches: Iterable[NDArray[np.uint8]],
    total: int,
    progress: Progress,
) -> dict[str, ActivationRange]:
    """Run the FP32 graph on every batch and follow the range of each tensor in `taps`."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in taps)
    path = fp32.with_name("tapped.onnx")  # shares fp32's external data
    onnx.save(tapped, path)
    run = Runner(path)
    ranges = {name: ActivationRange() for name in taps}
    seen = 0
    for images in batches:
        for name, values in zip(taps, run(images), strict=True):
            try:
                ranges[name].update(values)
            except FloatingPointError:
                raise InputError(
                    f"activation '{name}' is NaN or infinite on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                ) from None
        seen += len(images)
        progress("calibrating", seen, total)
    path.unlink()
    return ranges


class _Emitter:
    """Collects the nodes and tensors of the QDQ graph; each activation is quantized once."""

    def __init__(self, target: Quantization) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._target = target
        self._done: dict[str, str] = {}

    def activation(self, name: str, found: ActivationRange, recipe: Calibration) -> str:
        """Insert Q/DQ after the activation `name`; returns the dequantized name."""
        if name not in self._done:
            unsigned = self._target.activations == "uint8"
            levels = 255 if unsigned and found.non_negative else QMAX
            zero = 128 if unsigned and levels == QMAX else 0
            kind = TensorProto.UINT8 if unsigned else TensorProto.INT8
            scale = np.array(found.scale(recipe.activations, levels), np.float32)
            self._pair(name, scale, helper.make_tensor(f"{name}.zero", kind, [], [zero]))
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

    def weight(
        self, name: str, weight: NDArray[np.float32], axis: int, role: Role, recipe: Calibration
    ) -> str:
        """Store `weight` as INT8 with a scale for each index of `axis`, dequantized once."""
        if name not in self._done:
            safe = self._target.weights == "pair_safe"
            integers, scales = quantize_weight(
                weight,
                axis,
                recipe.weights,
                # a convolution's kernels choose their own order: bound every pair, not neighbours
                qmax=PAIR_SUM_MAX // 2 if safe and role == "conv" else QMAX,
                pair_safe=safe and role == "linear",
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
    ranges, recipe, target = calibrated.ranges, calibrated.recipe, calibrated.target
    stored = {tensor.name: tensor for tensor in graph.initializer}
    emitter = _Emitter(target)
    biased: dict[str, int] = {}  # output of a quantized MatMul -> its rank
    ranks = _ranks(graph)
    done = 0
    for node in graph.node:
        if decision := chosen.get(node.name):
            for index, name in enumerate(_activations(node, decision)):
                node.input[index] = emitter.activation(name, ranges[name], recipe)
            if decision.role in ("linear", "conv"):
                name = node.input[1]
                weight = numpy_helper.to_array(stored[name], str(folder)).astype(np.float32)
                axis = _output_channel_axis(node, weight.ndim)
                node.input[1] = emitter.weight(name, weight, axis, decision.role, recipe)
                if node.op_type == "MatMul":
                    biased[node.output[0]] = ranks.get(node.output[0], 0)
            done += 1
            progress("quantizing", done, len(chosen))
        elif node.op_type == "Add":
            _keep_bias_apart(node, biased, stored, folder, emitter)
        elif node.op_type == "LayerNormalization":
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

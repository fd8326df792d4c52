"""How much each quantized operator alone hurts a model's output: which to keep in float first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from vitedge.core.matching import in_order
from vitedge.core.spec import Detection
from vitedge.graph.run import Progress, Runner
from vitedge.quant.quality import box_noise

RUNS = 300
"""At most, to rank layers: what a calibration takes. A model of more layers gets fewer images."""
SWITCH = "vitedge.switch"
"""Input of the switched graph: which operator runs in INT8."""
NONE = -1
BROKEN = 1e30
"""The ratio of an operator that makes the output NaN or infinite."""


def harm(
    fp32: Path,
    int8: ModelProto,
    operators: Sequence[str],
    batches: Sequence[NDArray[np.uint8]],
    progress: Progress,
    orders: Sequence[str] = (),
    count: int = 1,
    detection: Detection | None = None,
) -> dict[str, float]:
    """Noise power over signal power, with one operator at a time in INT8.

    One session serves them all: each operator sits in an `If` beside its INT8 self, so that this
    takes one run for each operator and batch, and one for each batch in FP32.

    Args:
        fp32: the ONNX file that was quantized. A file is written beside it, and removed.
        int8: the QDQ model made of it, its nodes and activations named as they were.
        operators: names of the nodes to try.
        batches: images (B, H, W, 3) of the graph's own batch size; the first few are run.
        progress: told after every operator.
        orders: what chooses the order of each output, as `Manifest.orders` says.
        count: how many outputs, the main one first, are looked at.
        detection: how a detector's logits and boxes are read: its boxes count as `quality` says,
            not as the numbers they are.

    Returns for each operator the ratio at the output where that is largest: 0.01 is an SQNR of
    20 dB.
    """
    batches = batches[: max(1, RUNS // (len(operators) + 1))]
    count = max(count, 2) if detection else count
    path = fp32.with_name("switched.onnx")  # shares fp32's external data
    weights = path.with_name(path.name + ".data")
    model = _switched(onnx.load(fp32, load_external_data=False), int8, operators)
    onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=1024)
    del model  # its weights are in the file
    run = Runner(path)

    def outputs(switch: int) -> list[list[NDArray[np.float64]]]:
        index: NDArray[Any] = np.array(switch, np.int64)
        runs = (run(images, **{SWITCH: index})[:count] for images in batches)
        return [[output.astype(np.float64) for output in several] for several in runs]

    reference = outputs(NONE)
    signals = np.maximum(_powers(reference), 1e-30)
    ratios = {}
    for index, name in enumerate(operators):
        matched = [
            in_order(want, got, orders).outputs
            for want, got in zip(reference, outputs(index), strict=True)
        ]
        errors = [
            [x - y for x, y in zip(got, want, strict=True)]
            for want, got in zip(reference, matched, strict=True)
        ]
        noise = _powers(errors) / signals
        if detection:
            noise[1] = box_noise(reference, matched, detection)
        worst = float(np.max(noise))
        ratios[name] = worst if np.isfinite(worst) else BROKEN
        progress("ranking layers", index + 1, len(operators))
    path.unlink()
    weights.unlink(missing_ok=True)
    return ratios


def _powers(batches: Sequence[Sequence[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Of each output, over all batches."""
    powers = [[float(np.vdot(output, output)) for output in batch] for batch in batches]
    return np.array([sum(of_one) for of_one in zip(*powers, strict=True)])


def _switched(fp32: ModelProto, int8: ModelProto, operators: Sequence[str]) -> ModelProto:
    """`fp32` with a further input: the index in `operators` of the one that runs in INT8."""
    activations = {name for node in fp32.graph.node for name in node.output}
    makers = {name: node for node in int8.graph.node for name in node.output}
    indices = {name: index for index, name in enumerate(operators)}
    nodes: list[NodeProto] = []
    used: set[str] = set()
    for node in fp32.graph.node:
        if node.name not in indices:
            nodes.append(node)
            continue
        index, output = indices[node.name], node.output[0]
        name = f"{SWITCH}/{index}"
        quantized = _upstream(output, makers, activations)
        used.update(source for maker in quantized for source in maker.input)
        nodes += [
            helper.make_node("Constant", [], [name], f"{name}/Constant", value_int=index),
            helper.make_node("Equal", [SWITCH, name], [f"{name}/chosen"], f"{name}/Equal"),
            helper.make_node(
                "If",
                [f"{name}/chosen"],
                [output],
                f"{name}/If",
                then_branch=_branch(quantized, output, f"{name}/int8"),
                else_branch=_branch([node], output, f"{name}/float"),
            ),
        ]
    used -= {tensor.name for tensor in fp32.graph.initializer}
    del fp32.graph.node[:]
    fp32.graph.node.extend(nodes)
    fp32.graph.initializer.extend(t for t in int8.graph.initializer if t.name in used)
    fp32.graph.input.append(helper.make_tensor_value_info(SWITCH, TensorProto.INT64, []))
    return fp32


def _upstream(name: str, makers: Mapping[str, NodeProto], known: Set[str]) -> list[NodeProto]:
    """The nodes of the QDQ graph that make `name` of activations `known` in FP32, in order."""
    sources = [n for n in makers[name].input if n in makers and n not in known]
    before = [maker for source in sources for maker in _upstream(source, makers, known)]
    return [*before, makers[name]]


def _branch(nodes: Sequence[NodeProto], output: str, place: str) -> GraphProto:
    """A subgraph with copies of `nodes`, none of whose names is one of the graph around it."""
    inner = {name for node in nodes for name in node.output}
    copies: dict[str, NodeProto] = {}
    for node in nodes:
        if node.name not in copies:  # both inputs of a product may be one activation
            copies[node.name] = copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{place}/{node.name}"
            copy.input[:] = [f"{place}/{name}" if name in inner else name for name in node.input]
            copy.output[:] = [f"{place}/{name}" for name in node.output]
    result = helper.make_tensor_value_info(f"{place}/{output}", TensorProto.FLOAT, None)
    return helper.make_graph(list(copies.values()), place, [], [result])

"""One pass over the calibration images: all that any recipe needs to know of the FP32 graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from vitedge.core.errors import InputError, SharedError
from vitedge.core.manifest import Layer
from vitedge.core.spec import Calibration, Detection, Quantization
from vitedge.graph import trace
from vitedge.graph.channel_ids import Ids
from vitedge.graph.channels import Channels
from vitedge.graph.external import load
from vitedge.graph.run import Progress, shapes, tapped
from vitedge.quant.kernels import quantized_outputs
from vitedge.quant.policy import decide
from vitedge.quant.statistics import ChannelStatistics

Images = NDArray[np.uint8]

WEIGHTED = ("linear", "conv", "recurrent")
KEPT_IMAGES = 8
"""Calibration images whose FP32 output is kept, to compare with."""


@dataclass(frozen=True)
class Observed:
    """An FP32 graph, and what it did with the calibration images."""

    fp32: Path
    """An ONNX file, its weights in external data."""
    layers: tuple[Layer, ...]
    channels: Channels
    """Which can be rescaled; none where the recipe does not ask for it."""
    layout: Mapping[str, Ids]
    """Of each activation with such channels, their ids, (channels,)."""
    statistics: Mapping[str, ChannelStatistics]
    """Of every activation that is to be quantized."""
    images: tuple[Images, ...]
    """The first few batches."""
    outputs: tuple[NDArray[np.float32], ...]
    """Of the FP32 graph on them."""
    orders: Sequence[str] = ()
    """What chooses the order of each output, as `Manifest.orders` says."""
    boxes: tuple[NDArray[np.float32], ...] = ()
    """Of a detector's FP32 graph on them."""
    detection: Detection | None = None
    """How a detector's logits and boxes are read."""


@dataclass(frozen=True)
class Pass:
    """What one pass over the images has shown."""

    statistics: dict[str, ChannelStatistics]
    images: list[Images]
    """The first few batches."""
    outputs: list[list[NDArray[np.float32]]]
    """Of each of them the main output and, of a detector, its boxes."""


Keep = Callable[[Callable[[], Pass]], Pass]
"""Makes a pass, or has one that was made before."""


def observe(
    fp32: Path,
    batches: Iterator[Images],
    recipe: Calibration,
    target: Quantization,
    progress: Progress,
    orders: Sequence[str] = (),
    detection: Detection | None = None,
    keep: Keep = lambda make: make(),
) -> Observed:
    """Run the ONNX file `fp32` (uint8 NHWC input) on every batch (B, H, W, 3) of its own size.

    With `keep`, images of a pass that was made before are not run again. Raises InputError when an
    activation is NaN or infinite, or nothing can be quantized.
    """
    model = onnx.load(fp32, load_external_data=False)
    layers = decide(model, target)
    taps = _to_quantize(model.graph, layers, target)
    kept = [output.name for output in model.graph.output[: 2 if detection else 1]]

    def traced(first: Images) -> tuple[Channels, dict[str, Ids]]:
        """Which channels can be rescaled, and those of each activation."""
        channels = Channels()
        if recipe.equalize != "off":
            channels = trace.find(load(fp32), shapes(fp32, first))
        read = channels.read.items()
        return channels, {name: ids for name, ids in read if channels.root[ids].any()}

    def run() -> Pass:
        first = next(batches)
        _, free = traced(first)
        makers = {output: node.name for node in model.graph.node for output in node.output}
        stream = chain([first], batches)
        return _run(fp32, stream, recipe, taps, kept, free, makers, progress)

    shown = keep(run)
    channels, free = traced(shown.images[0])
    return Observed(
        fp32=fp32,
        layers=tuple(layers),
        channels=channels,
        layout={name: ids.reshape(-1) for name, ids in free.items() if name in shown.statistics},
        statistics=shown.statistics,
        images=tuple(shown.images),
        outputs=tuple(main for main, *_ in shown.outputs),
        orders=orders,
        boxes=tuple(boxes for _, *further in shown.outputs for boxes in further),
        detection=detection,
    )


def _run(
    fp32: Path,
    batches: Iterator[Images],
    recipe: Calibration,
    taps: Sequence[str],
    kept: Sequence[str],
    free: Mapping[str, Ids],
    makers: Mapping[str, str],
    progress: Progress,
) -> Pass:
    """The pass: `taps` into statistics, by channel where they are `free`, and outputs `kept`.

    `makers` are the nodes of all tensors. Raises InputError where one is NaN or infinite.
    """
    statistics = {name: ChannelStatistics() for name in taps}
    names = list(dict.fromkeys([*taps, *kept]))
    runner = tapped(fp32, names, often=True)
    images: list[Images] = []
    outputs: list[list[NDArray[np.float32]]] = []
    seen = 0
    for batch, values in runner.stream(batches):
        for name, value in zip(taps, values, strict=False):  # outputs come last
            try:
                statistics[name].update(_by_channel(value, free.get(name)))
            except FloatingPointError:
                raise SharedError(
                    f"'{name}', the output of {makers.get(name, 'no layer')}, is NaN or infinite "
                    "on a calibration image",
                    fix="check the weights and the preprocessing: FP32 itself is broken here",
                ) from None
        if seen < KEPT_IMAGES:
            images.append(batch)
            outputs.append([values[names.index(name)] for name in kept])
        seen += len(batch)
        progress("calibrating", seen, recipe.num_samples)
    return Pass(statistics, images, outputs)


def activations(node: NodeProto, layer: Layer) -> list[str]:
    """The inputs of `node` that are activations."""
    return list(node.input[: 1 if layer.role in ("linear", "conv") else 2])


def _to_quantize(graph: GraphProto, layers: list[Layer], target: Quantization) -> list[str]:
    """Every activation that is to be quantized or meets a weight that is, once."""
    quantized = {layer.node: layer for layer in layers if layer.quantized}
    if not quantized and not any(layer.stored for layer in layers):
        weighted = sorted({layer.op for layer in layers if layer.role in WEIGHTED})
        has = f"{', '.join(weighted)}, which this target runs in float" if weighted else "none"
        raise InputError(
            f"nothing to quantize: its operators with weights are {has}",
            fix="ship `precision='fp32'` there, or export for a target that quantizes "
            f"{' and '.join(weighted) or 'more'}: see 'vitedge targets list'",
        )
    nodes = [node for node in graph.node if node.name in quantized]
    read = (name for node in nodes for name in activations(node, quantized[node.name]))
    outputs = quantized_outputs(graph, quantized, target.quantized_outputs)
    stored = {layer.node for layer in layers if layer.stored}
    met = [node.input[0] for node in graph.node if node.name in stored]  # by weights, to rescale
    return list(dict.fromkeys([*read, *outputs.values(), *met]))


def _by_channel(values: NDArray[np.float32], ids: Ids | None) -> NDArray[np.float32]:
    """`values` as (n, channels): an axis of `ids` longer than 1 is one of channels."""
    if ids is None:
        return values.reshape(-1, 1)
    axes = [axis for axis, size in enumerate(ids.shape) if size != 1]
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    return moved.reshape(-1, ids.size)

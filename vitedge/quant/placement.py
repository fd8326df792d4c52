"""Which tensors are quantized, how, and where they are read: what PTQ writes and QAT trains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto

from vitedge.core.manifest import Layer
from vitedge.quant import e4m3
from vitedge.quant.kernels import output_channel_axis, quantized_outputs
from vitedge.quant.observe import activations
from vitedge.quant.parameters import Calibrated
from vitedge.quant.ranges import QMAX, fp8_reach, one_sided, quantization_range, reach, stored_scale
from vitedge.quant.weights import PAIR_SUM_MAX

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Activation:
    """One activation's quantizer."""

    scale: Array
    """The quantization step, ()."""
    unsigned: bool
    """Whether it is stored as uint8, not int8."""
    zero: int
    """The stored integer that means 0."""
    fp8: bool = False
    """Whether it is stored as E4M3, `scale` being what 1 stands for."""

    @property
    def stored_zero(self) -> NDArray[Any]:
        """The zero point as the graph stores it, ()."""
        if self.fp8:
            return np.array(self.zero, e4m3.DTYPE)
        return np.array(self.zero, np.uint8 if self.unsigned else np.int8)

    def rounded(self, values: Array) -> Array:
        """`values` as they are stored."""
        steps = np.asarray(values / self.scale)
        if self.fp8:
            steps = e4m3.rounded(steps)
        else:
            np.rint(steps, out=steps)
            np.clip(steps, *self.levels, out=steps)
        steps *= self.scale
        return steps

    @property
    def of_rest(self) -> Activation:
        """The quantizer of what this leaves of an activation that it does not clip."""
        scale = self.scale / np.float32(2 * QMAX)
        return Activation(scale, self.unsigned, 128 if self.unsigned else 0)

    @property
    def levels(self) -> tuple[int, int]:
        """The least and the largest multiple of the scale that can be stored."""
        return (-self.zero, 255 - self.zero) if self.unsigned else (-128, 127)


@dataclass(frozen=True)
class Weight:
    """One weight's quantizer, with a scale for each output channel."""

    axis: int
    """The output channel's."""
    qmax: int
    """The largest number stored, and minus the least."""
    pair_safe: bool
    """Whether neighbours are bounded together, as `vitedge.quant.weights` says."""
    stored: bool = False
    """Whether it is INT8 in the file alone, and float from when that is loaded."""
    fp8: bool = False
    """Whether it is E4M3."""


@dataclass
class Placement:
    """The quantizers of a graph, by the tensor that each quantizes."""

    activations: dict[str, Activation] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    reads: dict[str, dict[int, str]] = field(default_factory=dict)
    """Node -> input index -> tensor, for every input that is read quantized."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Node -> the tensor it writes, for every layer whose kernel puts out integers."""


def place(graph: GraphProto, calibrated: Calibrated, layers: Mapping[str, Layer]) -> Placement:
    """The quantizers that the `layers`, by node, read through; those in float have none."""
    placed = Placement()
    kinds: dict[str, set[str]] = defaultdict(set)  # of what multiplies an activation
    for node in graph.node:
        if node.name in layers:
            for name in activations(node, layers[node.name]):
                kinds[name].add(node.op_type)
    in_two = {node.input[0] for node in graph.node if node.name in calibrated.in_two}
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        layer = layers.get(node.name)
        if layer is None or not layer.quantized:
            continue
        reads = dict(enumerate(activations(node, layer)))
        for name in reads.values():
            if name not in placed.activations:
                placed.activations[name] = _activation(
                    calibrated, name, kinds[name], name not in in_two
                )
        if layer.role in ("linear", "conv"):
            name = reads[1] = node.input[1]
            axis = output_channel_axis(node, ranks[name])
            placed.weights.setdefault(name, _weight(calibrated, axis, layer.role))
        placed.reads[node.name] = reads
    quantized = [name for name, layer in layers.items() if layer.quantized]
    placed.outputs = quantized_outputs(graph, quantized, calibrated.target.quantized_outputs)
    integers = set(placed.outputs.values())
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in integers:
                if name not in placed.activations:
                    placed.activations[name] = _activation(
                        calibrated, name, kinds[name], name not in in_two
                    )
                placed.reads.setdefault(node.name, {})[index] = name
    for node in graph.node:  # a weight that products in INT8 read, too, is what those take
        if node.name in layers and layers[node.name].stored:
            axis = output_channel_axis(node, ranks[node.input[1]])
            placed.weights.setdefault(node.input[1], Weight(axis, QMAX, False, stored=True))
            placed.reads.setdefault(node.name, {})[1] = node.input[1]
    return placed


def _activation(calibrated: Calibrated, name: str, readers: Set[str], clipped: bool) -> Activation:
    """The quantizer of an activation that operators of the kinds `readers` read."""
    histogram, target = calibrated.ranges[name], calibrated.target
    if target.number_format == "fp8":
        step, _ = quantization_range(
            histogram, calibrated.settings.activations, fp8_reach(histogram)
        )
        scale = stored_scale(np.array(step, np.float32), target.floats)
        return Activation(scale, unsigned=False, zero=0, fp8=True)
    unsigned = target.activations == "uint8"
    if target.activations == "mixed":  # OpenVINO 2026.4 convolves int8 wrongly
        unsigned = not histogram.low or "Conv" in readers
    affine = readers <= {*target.zero_points} and ("Conv" not in readers or one_sided(histogram))
    reached = reach(histogram, unsigned=unsigned, affine=affine)
    estimator = calibrated.settings.activations if clipped else "minmax"
    step, low = quantization_range(histogram, estimator, reached)
    scale = stored_scale(np.array(step, np.float32), target.floats)
    zero = 128 if unsigned else 0
    if reached.levels > 2 * QMAX:
        zero = min(255, round(low / float(scale)))
    if name in calibrated.learned.activations:
        scale = np.array(calibrated.learned.activations[name], np.float32)
    return Activation(scale, unsigned, zero)


def _weight(calibrated: Calibrated, axis: int, role: str) -> Weight:
    if calibrated.target.number_format == "fp8":
        return Weight(axis, int(e4m3.LARGEST), pair_safe=False, fp8=True)
    qmax = 2 ** (calibrated.settings.weight_bits - 1) - 1
    safe = calibrated.target.weights == "pair_safe"
    if safe and role == "conv":  # its kernels choose their own order: bound every pair
        qmax = min(qmax, PAIR_SUM_MAX // 2)
    return Weight(axis, qmax, pair_safe=safe and role == "linear")

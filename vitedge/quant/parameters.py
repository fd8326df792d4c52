"""Quantization parameters: ranges and channel scales, from what calibration images have shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.manifest import Layer, Pair, Rounding, Spared
from vitedge.core.spec import (
    Detection,
    Equalize,
    Estimator,
    Quantization,
    WeightBits,
    WeightEstimator,
)
from vitedge.graph import equalize
from vitedge.graph.channels import Channels
from vitedge.quant.observe import Images, Observed
from vitedge.quant.smoothing import Group, smooth
from vitedge.quant.statistics import MagnitudeHistogram


@dataclass(frozen=True)
class QuantizerSettings:
    """A recipe with nothing left open."""

    equalize: Equalize
    activations: Estimator
    weights: WeightEstimator
    weight_bits: WeightBits


@dataclass(frozen=True)
class Learned:
    """Scales that training has found, by tensor."""

    activations: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """(channels,)."""


Integers = tuple[NDArray[Any], NDArray[np.float32]]
"""A weight as INT8 (or E4M3), shaped as it is, and its scales, (channels,)."""


@dataclass(frozen=True)
class Calibrated:
    """An FP32 graph, what a target's dialect makes of it, and the ranges of its activations."""

    path: Path
    """An ONNX file, its weights in external data: equalized where the settings say so."""
    layers: tuple[Layer, ...]
    ranges: Mapping[str, MagnitudeHistogram]
    settings: QuantizerSettings
    target: Quantization
    pairs: tuple[Pair, ...]
    """What was rescaled."""
    max_rel_error: float
    """What that left in the FP32 output."""
    images: tuple[Images, ...]
    """The first few batches, to measure on."""
    outputs: tuple[NDArray[np.float32], ...]
    """The main one of the FP32 graph on them."""
    integers: Mapping[str, Integers] = field(default_factory=dict)
    """Weights that are rounded by what their layers read, by name."""
    bias_shifts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """What is added to the biases of layers, by node, (channels,)."""
    in_two: frozenset[str] = frozenset()
    """Linears that read their input in two parts, by node."""
    rounding: Rounding | None = None
    """How these came to be."""
    spared: Spared | None = None
    """What stays in float for the model's output."""
    learned: Learned = Learned()
    """What takes the place of the ranges."""
    orders: Sequence[str] = ()
    """What chooses the order of each output, as `Manifest.orders` says."""
    boxes: tuple[NDArray[np.float32], ...] = ()
    """Of a detector's FP32 graph on the images."""
    detection: Detection | None = None
    """How a detector's logits and boxes are read; None of any other."""


def fit(observed: Observed, settings: QuantizerSettings, target: Quantization) -> Calibrated:
    """Rescale channels as the settings say, and take every range as it is then."""
    fp32, strength = observed.fp32, settings.equalize
    groups: list[Group] = []
    scale = np.ones(len(observed.channels.root))
    if strength != "off":
        groups, scale = smooth(observed, strength)
    path, error = fp32, 0.0
    if groups:
        path = fp32.with_name(f"equalized-{strength}.onnx")
        equalize.rescale(fp32, observed.channels, scale, path)
        error = equalize.check(fp32, path, observed.images[0], observed.outputs[0], observed.orders)
    unscaled = np.zeros(1, np.int64)
    return Calibrated(
        path=path,
        layers=observed.layers,
        ranges={
            name: statistics.distribution(scale[observed.layout.get(name, unscaled)])
            for name, statistics in observed.statistics.items()
        },
        settings=settings,
        target=target,
        pairs=tuple(_describe(observed.channels, group) for group in groups),
        max_rel_error=error,
        images=observed.images,
        outputs=observed.outputs,
        orders=observed.orders,
        boxes=observed.boxes,
        detection=observed.detection,
    )


def _describe(channels: Channels, group: Group) -> Pair:
    """The nodes whose outputs are divided by the scales of `group`, and where that is undone.

    Of Q and K, one is multiplied.
    """
    starts = np.array(sorted(channels.sources))
    members = np.flatnonzero(np.isin(channels.root, group.roots))
    owners = np.unique(np.searchsorted(starts, members, side="right") - 1)
    return Pair(
        sources=tuple(channels.sources[int(starts[owner])].name or "" for owner in owners),
        users=tuple(read.node.name or "" for read in group.reads),
    )

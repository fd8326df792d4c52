"""SmoothQuant's scales for every group of channels that can be rescaled (Xiao 2023, equation 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitedge.graph.channel_ids import Ids
from vitedge.graph.channels import Linear, Product
from vitedge.graph.constants import names_of, values
from vitedge.quant.observe import Observed
from vitedge.quant.statistics import Array

SCALE_LIMIT = 2.0**40

_Extremes = tuple[Ids, Array, int]
"""The largest magnitude of each id; 1 where it falls with its scale, -1 where it rises."""


@dataclass(frozen=True)
class Group:
    """Layers and products that share channels, so that one choice serves all of them."""

    reads: tuple[Linear | Product, ...]
    roots: Ids
    """The channels that are free to scale."""


def smooth(observed: Observed, strength: float) -> tuple[list[Group], Array]:
    """The groups whose channels are rescaled, and the scale of every id.

    A channel is divided by max|x|^α / max|w|^(1−α), where `strength` is α and w is relative to
    its output's own range, so that no scale of an input or an output changes the choice; in Q·Kᵀ,
    that of Q by max|q|^α / max|k|^(1−α) and that of K is multiplied. The scales of a group have a
    geometric mean of 1. A channel that is always zero keeps its own.
    """
    channels = observed.channels
    shrunk, grown = np.zeros(len(channels.root)), np.zeros(len(channels.root))
    groups = _groups(observed)
    for group in groups:
        for ids, peaks, power in _extremes(group, observed):
            same = channels.sign[ids] == power
            np.maximum.at(shrunk, channels.root[ids[same]], peaks[same])
            np.maximum.at(grown, channels.root[ids[~same]], peaks[~same])
    free = np.ones(len(channels.root))
    for group in groups:
        live = group.roots[(shrunk[group.roots] > 0) & (grown[group.roots] > 0)]
        if live.size:
            logs = strength * np.log(shrunk[live]) - (1 - strength) * np.log(grown[live])
            free[live] = np.clip(np.exp(logs - logs.mean()), 1 / SCALE_LIMIT, SCALE_LIMIT)
    scales: Array = free[channels.root] ** channels.sign
    return [group for group in groups if (free[group.roots] != 1).any()], scales


def _groups(observed: Observed) -> list[Group]:
    """What is quantized, in parts that share no channel; those with nothing free are left out."""
    channels = observed.channels
    owner: dict[int, int] = {}
    parts: dict[int, Group] = {}
    reads: list[Linear | Product] = [*channels.linears, *channels.products]
    for index, read in enumerate(reads):
        names = names_of(read.node.inputs[: 1 if isinstance(read, Linear) else 2])
        if not all(name in observed.layout for name in names):
            continue
        part = Group((read,), np.setdiff1d(channels.root[observed.layout[names[0]]], [0]))
        for other in sorted({owner[root] for root in part.roots.tolist() if root in owner}):
            old = parts.pop(other)
            part = Group(old.reads + part.reads, np.union1d(old.roots, part.roots))
        parts[index] = part
        owner.update(dict.fromkeys(part.roots.tolist(), index))
    return list(parts.values())


def _extremes(group: Group, observed: Observed) -> Iterator[_Extremes]:
    for read in group.reads:
        for name in names_of(read.node.inputs[: 1 if isinstance(read, Linear) else 2]):
            amax = observed.statistics[name].amax
            yield observed.layout[name], amax, 1
            if isinstance(read, Linear):
                yield _of_weight(read, amax)


def _of_weight(linear: Linear, amax: Array) -> _Extremes:
    """The largest weight that reads each channel, as a share of what its output takes in.

    Outputs have a scale each: one whose weights are all large is no harder to quantize. `amax` is
    the largest magnitude of each channel, (in,).
    """
    weight = np.moveaxis(np.abs(values(linear.node.inputs[1])), linear.output_axis, 0)
    ids = np.moveaxis(linear.weight_ids, linear.output_axis, 0)
    ids = ids.reshape(ids.shape[:2])  # (1 or out, in)
    peaks = weight.reshape(*weight.shape[:2], -1).max(axis=2)  # (out, in)
    inputs = amax.reshape(-1, peaks.shape[1])  # of each convolution group
    inputs = np.repeat(inputs, len(peaks) // len(inputs), axis=0)
    intake = (peaks * inputs).max(axis=1, keepdims=True)  # (out, 1)
    peaks = np.divide(peaks, intake, where=intake > 0, out=np.zeros(peaks.shape))
    if len(ids) == 1:  # a channel goes to every output
        peaks = peaks.max(axis=0, keepdims=True)
    return ids.reshape(-1), peaks.astype(np.float64).reshape(-1), -1

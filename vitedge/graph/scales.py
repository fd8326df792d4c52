"""Which scales leave the least INT8 noise, as predicted from maxima and powers of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from vitedge.graph.channels import Channels, Ids, Linear, Product
from vitedge.graph.moments import Key, Moments

STRENGTHS = tuple(i / 10 for i in range(11))
"""SmoothQuant's α, from flat weights (0) to flat activations (1)."""
MIN_GAIN = 0.5
"""Channels are left as they are unless the predicted noise falls to this share of it: of smaller
gains, measured at the output, as many are losses."""
SCALE_LIMIT = 2.0**40
LEVELS = 127

Array = NDArray[np.float64]
Weights = Callable[[NodeProto], NDArray[np.float32]]
"""The constant weights of a node."""


@dataclass
class Group:
    """Layers and products that share channels, so that one choice serves all of them."""

    linears: list[Linear]
    products: list[Product]
    roots: Ids
    """The channels that are free to scale."""


@dataclass(frozen=True)
class Choice:
    """The scale of each of a group's roots, and the α it came from."""

    scales: Array
    strength: float


def key_of(name: str, ids: Ids) -> Key:
    """What to measure of the activation `name` so that each value belongs to one of `ids`."""
    return name, tuple(axis for axis, size in enumerate(ids.shape) if size == 1)


def groups(found: Channels) -> list[Group]:
    """Split what was found into parts that share no channel; those with nothing free are left."""
    owner: dict[int, int] = {}
    parts: dict[int, Group] = {}
    reads = [(linear, linear.activation_ids) for linear in found.linears]
    single = [Group([linear], [], _free(found, ids)) for linear, ids in reads]
    single += [Group([], [product], _free(found, product.left)) for product in found.products]
    for index, part in enumerate(single):
        for other in sorted({owner[root] for root in part.roots.tolist() if root in owner}):
            old = parts.pop(other)
            part = Group(
                old.linears + part.linears,
                old.products + part.products,
                np.union1d(old.roots, part.roots),
            )
        if part.roots.size:
            parts[index] = part
            owner.update(dict.fromkeys(part.roots.tolist(), index))
    return list(parts.values())


def _free(found: Channels, ids: Ids) -> Ids:
    return np.setdiff1d(found.root[ids], [0])


def choose(
    group: Group, found: Channels, moments: Mapping[Key, Moments], weights: Weights
) -> Choice | None:
    """The scales of least predicted noise; None where leaving the group alone is as good."""
    reads: list[_LinearNoise | _ProductNoise]
    reads = [_LinearNoise(linear, moments, weights(linear.node)) for linear in group.linears]
    reads += [_ProductNoise(product, moments) for product in group.products]
    shrunk, grown = np.zeros(len(found.root)), np.zeros(len(found.root))
    for read in reads:
        for ids, values, power in read.extremes():
            same = found.sign[ids] == power
            np.maximum.at(shrunk, found.root[ids[same]], values[same])
            np.maximum.at(grown, found.root[ids[~same]], values[~same])
    shrunk, grown = shrunk[group.roots], grown[group.roots]
    live = (shrunk > 0) & (grown > 0)
    if not live.any():
        return None
    free = np.ones(len(found.root))

    def noise(scales: Array) -> float:
        free[group.roots] = scales
        every = free[found.root] ** found.sign
        return sum(read.noise(every) for read in reads)

    best, least = None, MIN_GAIN * noise(np.ones(len(group.roots)))
    for strength in STRENGTHS:
        scales = np.ones(len(group.roots))
        logs = strength * np.log(shrunk[live]) - (1 - strength) * np.log(grown[live])
        scales[live] = np.exp(logs - logs.mean())
        scales = np.clip(scales, 1 / SCALE_LIMIT, SCALE_LIMIT)
        predicted = noise(scales)
        if predicted < least:
            best, least = Choice(scales, strength), predicted
    return best


class _Activation:
    """One activation's moments by id."""

    def __init__(self, name: str, ids: Ids, moments: Mapping[Key, Moments]) -> None:
        measured = moments[key_of(name, ids)]
        self.ids, place = np.unique(ids, return_inverse=True)
        self.amax, self.power = np.zeros(len(self.ids)), np.zeros(len(self.ids))
        np.maximum.at(self.amax, place.reshape(-1), measured.amax.reshape(-1))
        np.maximum.at(self.power, place.reshape(-1), measured.power.reshape(-1))

    def step(self, scale: Array) -> float:
        """Its quantization step once divided by `scale`."""
        return float((self.amax / scale[self.ids]).max()) / LEVELS


class _LinearNoise:
    """Noise in y = Σ x W, of both roundings, relative to y.

    Steps are Δx = max|x| / 127 and, for each output, Δw = max|w| / 127; rounding to a step Δ is
    noise of power Δ² / 12.
    """

    def __init__(
        self, linear: Linear, moments: Mapping[Key, Moments], weight: NDArray[np.float32]
    ) -> None:
        self._x = _Activation(linear.activation, linear.activation_ids, moments)
        ids = np.moveaxis(linear.weight_ids, linear.output_axis, 0)  # (1 or out, in, 1, …)
        self._ids, self._place = ids, np.searchsorted(self._x.ids, ids)
        self._squares = np.square(np.moveaxis(weight, linear.output_axis, 0))  # (out, in, …)
        self._inner = tuple(range(1, self._squares.ndim))
        self._taps = int(np.prod(self._squares.shape[2:]))
        self._signal = float((self._squares * self._x.power[self._place]).sum())

    def extremes(self) -> list[tuple[Ids, Array, int]]:
        """Per id the largest |x|, which falls with its scale, and |w|, which rises."""
        ids = np.broadcast_to(self._ids, (*self._squares.shape[:2], *self._ids.shape[2:]))
        peaks = np.sqrt(self._squares.max(axis=self._inner[1:], keepdims=True))
        rows = np.zeros(len(self._x.ids))
        if len(self._ids) == 1:  # a channel goes to every output
            rows[self._place.reshape(-1)] = peaks.max(axis=0).reshape(-1)
        else:
            np.maximum.at(rows, np.searchsorted(self._x.ids, ids), peaks)
        return [(self._x.ids, self._x.amax, 1), (self._x.ids, rows, -1)]

    def noise(self, scale: Array) -> float:
        grown = np.square(scale[self._ids]).astype(np.float32)
        squares = self._squares * grown
        loads = (self._x.power[self._place] / grown).sum(axis=self._inner) * self._taps
        steps = squares.max(axis=self._inner) / LEVELS**2
        total = self._x.step(scale) ** 2 * float(squares.sum()) + float((steps * loads).sum())
        return total / 12 / max(self._signal, 1e-300)


class _ProductNoise:
    """Noise in Σ a b, of both roundings, relative to the product."""

    def __init__(self, product: Product, moments: Mapping[Key, Moments]) -> None:
        left, right = product.node.input
        self._a = _Activation(left, product.left, moments)
        self._b = _Activation(right, product.right, moments)
        pairs = np.broadcast_arrays(product.left[..., 0, :], product.right[..., :, 0])
        powers = [
            x.power[np.searchsorted(x.ids, ids)]
            for x, ids in zip((self._a, self._b), pairs, strict=True)
        ]
        self._signal = float((powers[0] * powers[1]).sum())

    def extremes(self) -> list[tuple[Ids, Array, int]]:
        """Per id the largest magnitude: each falls with its own scale."""
        return [(self._a.ids, self._a.amax, 1), (self._b.ids, self._b.amax, 1)]

    def noise(self, scale: Array) -> float:
        a, b = self._a, self._b
        powers = [(x.power / np.square(scale[x.ids])).sum() for x in (a, b)]
        total = a.step(scale) ** 2 * powers[1] + b.step(scale) ** 2 * powers[0]
        return float(total) / 12 / max(self._signal, 1e-300)

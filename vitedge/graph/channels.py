"""What can be rescaled in a graph without changing what it computes: the result of a trace."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vitedge.graph.channel_ids import Ids


@dataclass(frozen=True)
class Factor:
    """Input `index` of `node`, a constant, is to be multiplied by scale[ids] ** power."""

    node: ir.Node
    index: int
    ids: Ids
    """Broadcasts to the constant's shape."""
    power: int


@dataclass(frozen=True)
class Linear:
    """A layer with constant weights that undoes the scales of its input."""

    node: ir.Node
    weight_ids: Ids
    """Broadcasts to the weight's shape."""
    output_axis: int
    """Of the weight."""


@dataclass(frozen=True)
class Product:
    """A product of two activations in which the scales of both cancel: Q·Kᵀ."""

    node: ir.Node
    pairs: tuple[Ids, Ids]
    """Ids of its first input's columns and its second's rows, in the order they meet."""


@dataclass
class Channels:
    """What there is to choose: scale[id] = free[root[id]] ** sign[id], and 1 for root 0."""

    factors: list[Factor] = field(default_factory=list)
    read: dict[str, Ids] = field(default_factory=dict)
    """Of each activation that a layer or a product reads: 1 along every axis on which its ids do
    not vary."""
    linears: list[Linear] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    sources: dict[int, ir.Node] = field(default_factory=dict)
    """First id -> the node whose output channels these and the following ids are."""
    root: Ids = field(default_factory=lambda: np.zeros(1, np.int64))
    sign: Ids = field(default_factory=lambda: np.ones(1, np.int64))

"""What layers read, as second moments: which rounding errors of their weights cancel."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from vitedge.graph.run import Progress, tapped
from vitedge.quant.columns import Columns
from vitedge.quant.placement import Activation

Array = NDArray[np.float32]

ROWS_PER_INPUT = 8
"""Rows of a layer that are looked at for each of its inputs: more change its rounding little."""


@dataclass(frozen=True)
class RoundedLayer:
    """A layer whose weight is to be rounded by what it reads."""

    node: NodeProto
    weight: str
    columns: Columns
    reads: Activation | None
    """The quantizer of what it reads; None where that stays float."""


class Moments:
    """Sums over the rows that one weight multiplies, as they are when they are read."""

    def __init__(self, columns: Columns) -> None:
        groups, inputs = columns.groups, columns.inputs
        self.second = np.zeros((groups, inputs, inputs), np.float32)
        """Σ x̂ x̂ᵀ of the values as they are stored."""
        self.first = np.zeros((groups, inputs))
        """Σ x̂."""
        self.first_float = np.zeros((groups, inputs))
        """Σ x, before they were quantized."""
        self.rows = 0
        self.rows_seen = 0
        """Of which so many were drawn."""

    def update(self, rows: Array, total: int, quantizer: Activation | None) -> None:
        """Add (groups, rows, inputs), drawn from `total` rows."""
        read = quantizer.rounded(rows) if quantizer else rows
        for group, values in enumerate(read):
            self.second[group] += values.T @ values
        self.first += read.sum(axis=1, dtype=np.float64)
        self.first_float += rows.sum(axis=1, dtype=np.float64)
        self.rows += rows.shape[1]
        self.rows_seen += total


def collect(
    fp32: Path,
    layers: Sequence[RoundedLayer],
    batches: Iterator[NDArray[np.uint8]],
    count: int,
    progress: Progress,
) -> Mapping[str, Moments]:
    """The moments of every weight of `layers`, over `count` images in `batches`."""
    names = list(dict.fromkeys(layer.node.input[0] for layer in layers))
    moments = {layer.weight: Moments(layer.columns) for layer in layers}
    run = tapped(fp32, names, often=True)
    seen = 0
    for batch, values in run.stream(batches):
        tensors: dict[str, Any] = dict(zip(names, values, strict=True))
        for layer in layers:
            wanted = math.ceil(ROWS_PER_INPUT * layer.columns.inputs * len(batch) / count)
            rng = np.random.default_rng((zlib.crc32(layer.node.name.encode()), seen))
            rows = layer.columns.rows(layer.node, tensors[layer.node.input[0]], wanted, rng)
            moments[layer.weight].update(*rows, layer.reads)
        seen += len(batch)
        progress("looking at what layers read", min(seen, count), count)
    return moments

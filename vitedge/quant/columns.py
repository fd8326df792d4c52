"""A layer as the product that it is: rows of what it reads, columns of weights.

A convolution multiplies each patch of its input with its kernels, group by group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from vitedge.quant.kernels import groups_of, output_channel_axis

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Columns:
    """How the weight of one layer lies: (groups, inputs, channels of a group)."""

    op: str
    shape: tuple[int, ...]
    """Of the weight."""
    axis: int
    """The output channel's."""
    groups: int

    @classmethod
    def of(cls, node: NodeProto, shape: Sequence[int]) -> Columns | None:
        """Of a MatMul, Gemm or Conv with a weight of `shape`; None where its rows are not known."""
        settings = _settings(node)
        if any(settings.get(factor, 1.0) != 1.0 for factor in ("alpha", "beta")):
            return None
        if settings.get("transA") or settings.get("auto_pad", b"NOTSET") not in _PADDED:
            return None
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            return None
        groups = groups_of(node) if node.op_type == "Conv" else 1
        return cls(node.op_type, tuple(shape), output_channel_axis(node, len(shape)), groups)

    @property
    def inputs(self) -> int:
        """Values that one output is a sum over."""
        return math.prod(self.shape) // self.shape[self.axis]

    @property
    def moment_bytes(self) -> int:
        """Of the second moments of what it reads, float32."""
        return 4 * self.groups * self.inputs**2

    def split(self, weight: Array) -> Array:
        """The weight as (groups, inputs, channels of a group)."""
        flat = np.moveaxis(weight, self.axis, 0).reshape(self.groups, -1, self.inputs)
        return np.ascontiguousarray(flat.transpose(0, 2, 1))

    def join(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Columns in the shape of the weight."""
        others = [size for place, size in enumerate(self.shape) if place != self.axis]
        flat = columns.transpose(0, 2, 1).reshape(-1, *others)
        return np.ascontiguousarray(np.moveaxis(flat, 0, self.axis))

    def rows(
        self, node: NodeProto, values: Array, count: int, rng: np.random.Generator
    ) -> tuple[Array, int]:
        """(groups, rows, inputs) of what `node` reads, `count` drawn at random; and of how many."""
        if self.op != "Conv":
            flat = values.reshape(-1, values.shape[-1])
            return flat[_drawn(len(flat), count, rng)][None], len(flat)
        return self._patches(node, values, count, rng)

    def _patches(
        self, node: NodeProto, images: Array, count: int, rng: np.random.Generator
    ) -> tuple[Array, int]:
        kernel = self.shape[2:]
        settings, dims = _settings(node), len(kernel)
        strides = settings.get("strides", [1] * dims)
        dilations = settings.get("dilations", [1] * dims)
        pads = settings.get("pads", [0] * 2 * dims)
        margins = [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)]
        padded = np.pad(images, margins)
        places = [
            (size - dilation * (taps - 1) - 1) // stride + 1
            for size, dilation, taps, stride in zip(
                padded.shape[2:], dilations, kernel, strides, strict=True
            )
        ]
        total = len(images) * math.prod(places)
        image, *corner = np.unravel_index(_drawn(total, count, rng), (len(images), *places))
        taps = []
        for offset in np.ndindex(*kernel):
            parts = zip(corner, strides, offset, dilations, strict=True)
            at = [c * stride + o * dilation for c, stride, o, dilation in parts]
            taps.append(padded[tuple([image, slice(None), *at])])  # (rows, channels)
        patches = np.stack(taps, axis=-1).reshape(len(image), self.groups, self.inputs)
        return np.ascontiguousarray(patches.transpose(1, 0, 2)), total


_PADDED = (b"NOTSET", b"VALID", "NOTSET", "VALID")


def _settings(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _drawn(total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count >= total:
        return np.arange(total)
    return np.sort(rng.choice(total, count, replace=False))

"""Function-preserving rescaling of an FP32 graph, so that no channel outgrows the others.

One INT8 scale serves a whole activation: a single outlier channel leaves the others few levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.matching import in_order
from vitedge.core.numerics import REWRITE_PARITY, relative_error
from vitedge.graph.channels import Channels, Factor
from vitedge.graph.external import changed, constant, load, write
from vitedge.graph.run import Runner, tapped

_UNSCALED = ("Softmax", "Gelu", "Erf", "Sigmoid", "Tanh", "Sqrt")
"""What scales cannot pass: their inputs, and so their outputs, are as they were."""

Images = NDArray[np.uint8]
Scales = NDArray[np.float64]


def rescale(fp32: Path, channels: Channels, scale: Scales, path: Path) -> None:
    """Write the ONNX file `fp32` to `path`, beside it, with the scale of each id of `channels`.

    The external data of `fp32` is shared; only constants that change are new.
    """
    model = load(fp32)
    nodes = {node.name: node for node in model.graph}
    for (name, index), factors in _changes(channels.factors, scale).items():
        value = nodes[name].inputs[index]
        assert value is not None and value.const_value is not None
        rescaled = changed(value.const_value, ir.DataType.FLOAT, partial(_scaled, factors, scale))
        new = constant(model.graph, f"{name}/equalized_{index}", rescaled)
        nodes[name].replace_input_with(index, new)
    write(model, path, inline_bytes=0)  # none is a shape


def _scaled(factors: Iterable[Factor], scale: Scales, value: NDArray[Any]) -> NDArray[Any]:
    for factor in factors:
        value = value * scale[factor.ids] ** factor.power
    return value


def _changes(factors: Iterable[Factor], scale: Scales) -> dict[tuple[str, int], list[Factor]]:
    """What changes, by node and input."""
    changes: dict[tuple[str, int], list[Factor]] = {}
    for factor in factors:
        if (scale[factor.ids] != 1).any():
            changes.setdefault((factor.node.name or "", factor.index), []).append(factor)
    return changes


def check(
    fp32: Path,
    path: Path,
    images: Images,
    fp32_output: NDArray[np.float32],
    orders: Sequence[str] = (),
) -> float:
    """The largest relative error of the outputs of `path` on `images`, against `fp32_output` and
    what further ones are of `fp32`; `orders` are as `Manifest.orders` says.

    Raises InputError, naming the first layer that differs, when it is above REWRITE_PARITY.
    """
    outputs = Runner(path)(images)
    wanted = Runner(fp32)(images) if len(outputs) > 1 else [fp32_output]
    outputs = in_order(wanted, outputs, orders).outputs
    error = max(relative_error(want, got) for want, got in zip(wanted, outputs, strict=True))
    if error <= REWRITE_PARITY:
        return error
    raise InputError(
        f"equalizing changed what the model computes, by {error:.1e} relative, from "
        f"{_first_difference(fp32, path, images)} on",
        fix='use a calibration recipe with `equalize = "off"`',
    )


def _first_difference(fp32: Path, path: Path, images: Images) -> str:
    """The first node of which the graphs must agree, because no scale is left, but do not."""
    graph = onnx.load(fp32, load_external_data=False).graph
    fixed = {node.output[0]: node.name for node in graph.node if node.op_type in _UNSCALED}
    if not fixed:
        return "the output"
    runs = [tapped(p, list(fixed))(images) for p in (fp32, path)]
    for name, want, got in zip(fixed.values(), *runs, strict=True):
        if not relative_error(want, got) <= REWRITE_PARITY:
            return str(name)
    return "the output"

"""Function-preserving rescaling of an FP32 graph, so that no channel outgrows the others.

One INT8 scale serves a whole activation: a single outlier channel leaves the others few levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vitedge.core.errors import InputError
from vitedge.core.numerics import REWRITE_PARITY, relative_error
from vitedge.graph.channels import Channels, Factor
from vitedge.graph.external import DataFile
from vitedge.graph.run import Runner, tapped

_UNSCALED = ("Softmax", "Gelu", "Erf", "Sigmoid", "Tanh", "Sqrt")
"""What scales cannot pass: their inputs, and so their outputs, are as they were."""

Images = NDArray[np.uint8]
Scales = NDArray[np.float64]


def rescale(fp32: Path, channels: Channels, scale: Scales, path: Path) -> None:
    """Write the ONNX file `fp32` to `path`, beside it, with the scale of each id of `channels`.

    The external data of `fp32` is shared; only constants that change are new.
    """
    model = onnx.load(fp32, load_external_data=False)
    nodes = {node.name: node for node in model.graph.node}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    data = DataFile(path, inline_bytes=0)  # none is a shape
    for (name, index), factors in _changes(channels.factors, scale).items():
        value = numpy_helper.to_array(stored[nodes[name].input[index]], str(fp32.parent))
        for factor in factors:
            value = value * scale[factor.ids] ** factor.power
        changed = data.add(f"{name}/equalized_{index}", value.astype(np.float32))
        nodes[name].input[index] = changed
    model.graph.initializer.extend(data.tensors)
    used = {name for node in model.graph.node for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    onnx.save(model, path)


def _changes(factors: Iterable[Factor], scale: Scales) -> dict[tuple[str, int], list[Factor]]:
    """What changes, by node and input."""
    changes: dict[tuple[str, int], list[Factor]] = {}
    for factor in factors:
        if (scale[factor.ids] != 1).any():
            changes.setdefault((factor.node.name, factor.index), []).append(factor)
    return changes


def check(fp32: Path, path: Path, images: Images, fp32_output: NDArray[np.float32]) -> float:
    """The largest relative error of the output of `path` on `images` against `fp32_output`.

    Raises InputError, naming the first layer that differs, when it is above REWRITE_PARITY.
    """
    error = relative_error(fp32_output, Runner(path)(images)[0])
    if error <= REWRITE_PARITY:
        return error
    raise InputError(
        f"equalizing changed what the model computes, by {error:.1e} relative, from "
        f"{_first_difference(fp32, path, images)} on",
        fix='use a calibration recipe with `equalize = "off"`',
    )


def _first_difference(fp32: Path, path: Path, images: Images) -> str:
    """The first node of which the graphs must agree, because no scale is left, but do not."""
    model, changed = (onnx.load(p, load_external_data=False) for p in (fp32, path))
    fixed = {node.output[0]: node.name for node in model.graph.node if node.op_type in _UNSCALED}
    if not fixed:
        return "the output"
    runs = [tapped(m, p, list(fixed))(images) for m, p in ((model, fp32), (changed, path))]
    for name, want, got in zip(fixed.values(), *runs, strict=True):
        if not relative_error(want, got) <= REWRITE_PARITY:
            return str(name)
    return "the output"

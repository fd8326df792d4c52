"""ONNX Runtime's own operators in a graph: an INT8 product with its bias, an attention, as one.

They are what its own optimiser makes of parts of this, but for the bias and most attentions, and of
no one CPU: nothing of a layout is baked in. Each was faster on ViTs where it was timed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vitedge.core.errors import InputError
from vitedge.core.numerics import REWRITE_PARITY
from vitedge.graph.constants import is_constant, shape
from vitedge.graph.contrib.attention import fuse_attentions
from vitedge.graph.contrib.linear import linear_bias
from vitedge.graph.contrib.operator import DOMAIN, replace
from vitedge.graph.external import constant, load
from vitedge.graph.run import Runner, shapes

INT8_PARITY = 1e-2
"""Noise over signal: where floats differ in the last place, INT8 rounds some the other way."""


def rewrite(plain: Path, path: Path) -> bool:
    """Write the ONNX file `plain` to `path` with such operators; False where none finds its place.

    Raises InputError where the two differ by more than rounding.
    """
    model = load(plain)
    value = model.graph.inputs[0]
    assert value.shape is not None
    sizes_ = [size if isinstance(size, int) else 2 for size in value.shape]
    images = np.random.default_rng(0).integers(0, 256, sizes_, np.uint8)
    tensors = shapes(plain, images)
    half = any(node.attributes.get_int("to", 0) == ir.DataType.FLOAT16 for node in model.graph)
    count = 0 if half else fuse_attentions(model, tensors)  # the CPU has them in float32 alone
    count += _products(model.graph)
    if not count:
        return False
    RemoveUnusedNodesPass()(model)
    model.opset_imports[DOMAIN] = 1
    onnx.save(ir.to_proto(model), path)
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph)
    _check(plain, path, images, INT8_PARITY if quantized else REWRITE_PARITY**2)
    return True


def _check(plain: Path, path: Path, images: NDArray[np.uint8], limit: float) -> None:
    for want, got in zip(Runner(plain)(images), Runner(path)(images), strict=True):
        noise, signal = (
            np.square(got - want, dtype=np.float64).sum(),
            np.square(want, dtype=np.float64).sum(),
        )
        if not noise <= limit * signal:
            raise InputError(
                "ONNX Runtime's own operators change what the model computes, by "
                f"{math.sqrt(noise / signal):.1e} relative",
                fix="set `contrib = false` in a copy of the target, and report the model",
            )


def _products(graph: ir.Graph) -> int:
    """Make every MatMul of an INT8 activation and an INT8 weight one operator with its bias."""
    count = 0
    for node in list(graph):
        if node.op_type != "MatMul":
            continue
        activation, weight = (_integers(value) for value in node.inputs)
        if activation is None or weight is None:
            continue
        (x, x_scale, x_zero), (w, w_scale, w_zero) = activation, weight
        if not is_constant(w) or len(shape(w)) != 2:
            continue
        output, readers = node.outputs[0], node.outputs[0].consumers()
        inputs = [x, w, x_scale, w_scale, x_zero, w_zero]
        bias = linear_bias(readers[0], output, shape(w)[1]) if readers else None
        if bias is not None:
            inputs.append(constant(graph, f"{node.name}/bias", bias))
            output = readers[0].outputs[0]
        replace(graph, node, "MatMulIntegerToFloat", inputs, output, {})
        count += 1
    return count


def _integers(value: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Integers, scale and zero point of what a DequantizeLinear gives."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return None
    integers, scale, zero = node.inputs
    if integers is None or scale is None or zero is None:
        return None
    narrow = (ir.DataType.INT8, ir.DataType.UINT8)
    float32 = scale.const_value is not None and scale.const_value.dtype == ir.DataType.FLOAT
    one_axis = (
        not is_constant(integers)
        or len(shape(scale)) == 0
        or (node.attributes.get_int("axis", 1) in (1, -1))
    )
    return (integers, scale, zero) if float32 and one_axis and zero.dtype in narrow else None

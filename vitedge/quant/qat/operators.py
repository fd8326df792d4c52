"""ONNX operators as torch functions, as far as ViTs use them: what makes a graph trainable.

onnx2torch 1.5 does this up to opset 17 and without Gelu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from vitedge.quant.qat.movement import MOVEMENT, numbers, widths

Operator = Callable[..., Tensor | Sequence[Tensor]]
"""Takes the inputs, None where an optional one is absent, and the attributes by their names."""


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of `node` by name; text as str, tensors as torch's."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = torch.from_numpy(numpy_helper.to_array(value).copy())
        values[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return values


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    return x.to(torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(to))).dtype)


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _gemm(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    x, weight = x.T if a.get("transA") else x, weight.T if a.get("transB") else weight
    y = (x @ weight) * a.get("alpha", 1.0)
    return y if bias is None else y + bias * a.get("beta", 1.0)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    shape = x.shape[a.get("axis", -1) :]
    shift = None if bias is None else bias.expand(shape)
    return F.layer_norm(x, shape, weight.expand(shape), shift, a.get("epsilon", 1e-5))


def _batch_norm(x: Tensor, *parameters: Tensor, epsilon: float = 1e-5, **unused: Any) -> Tensor:
    weight, bias, mean, variance = parameters
    return F.batch_norm(x, mean, variance, weight, bias, eps=epsilon)


def _instance_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias, eps=epsilon)


def _group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    if len(weight) == x.shape[1]:  # of each channel, since opset 21; before, of each group
        return F.group_norm(x, num_groups, weight, bias, epsilon)
    size = x.shape[1] // num_groups
    weight, bias = (t.repeat_interleave(size) for t in (weight, bias))
    return F.group_norm(x, num_groups, weight, bias, epsilon)


def _window(
    x: Tensor, kernel: Sequence[int], a: Mapping[str, Any]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of a convolution or a pooling: strides, dilations, and padding before and after each axis."""
    rank = len(kernel)
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    if a.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        pads = a.get("pads", [0] * 2 * rank)
        return strides, dilations, pads[:rank], pads[rank:]
    window = zip(x.shape[-rank:], kernel, strides, dilations, strict=True)
    totals = [
        max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        for size, width, stride, dilation in window
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    lower = a["auto_pad"] == "SAME_LOWER"
    return strides, dilations, large if lower else small, small if lower else large


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    strides, dilations, before, after = _window(x, weight.shape[2:], a)
    none, groups = [0] * len(before), a.get("group", 1)
    if before != after:
        x, before = F.pad(x, widths(before, after)), none
    if weight[0, 0].numel() == 1 and not any(before):
        # torch 2.13 on CPUs (oneDNN) corrupts its memory in the gradient of a strided 1×1
        for axis, stride in enumerate(strides, x.ndim - len(strides)):
            x = x.movedim(axis, 0)[::stride].movedim(0, axis)
        strides = [1] * len(strides)
    return torch.convolution(x, weight, bias, strides, before, dilations, False, none, groups)


def _conv_transpose(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    strides, dilations, before, after = _window(x, weight.shape[2:], a)
    if before != after or "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("uneven padding")
    added, groups = a.get("output_padding", [0] * len(before)), a.get("group", 1)
    return torch.convolution(x, weight, bias, strides, before, dilations, True, added, groups)


def _max_pool(x: Tensor, *, kernel_shape: list[int], **a: Any) -> Tensor:
    strides, dilations, before, after = _window(x, kernel_shape, a)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel_shape) - 1]
    padded = F.pad(x, widths(before, after), value=-math.inf)
    return pool(padded, kernel_shape, strides, 0, dilations, bool(a.get("ceil_mode")))


def _average_pool(x: Tensor, *, kernel_shape: list[int], **a: Any) -> Tensor:
    strides, dilations, before, after = _window(x, kernel_shape, a)
    if before != after or any(size != 1 for size in dilations):
        raise NotImplementedError("uneven padding or dilation")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel_shape) - 1]
    ceil, counted = bool(a.get("ceil_mode")), bool(a.get("count_include_pad"))
    return pool(x, kernel_shape, strides, before, ceil, counted)


def _resize(
    x: Tensor,
    region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    **a: Any,
) -> Tensor:
    """Images (B, C, h, w); ViTs resize positions and features so, and nothing else."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(a.get("mode", "nearest"), "nearest")
    if sizes is not None and sizes.numel():
        size = numbers(sizes)[-2:]
    else:
        assert scales is not None
        size = [math.floor(n * s) for n, s in zip(x.shape[-2:], scales.tolist()[-2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x, size)
    aligned = a.get("coordinate_transformation_mode") == "align_corners"
    antialias = bool(a.get("antialias"))
    return F.interpolate(x, size, mode=mode, align_corners=aligned, antialias=antialias)


def _grid_sample(x: Tensor, grid: Tensor, **a: Any) -> Tensor:
    """Images (B, C, h, w) at the places (B, H, W, 2)."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(a.get("mode", "linear"), "nearest")
    padding, aligned = a.get("padding_mode", "zeros"), bool(a.get("align_corners"))
    return F.grid_sample(x, grid, mode, padding, aligned)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduced(x: Tensor, axes: Tensor | Sequence[int] | None = None, **a: Any) -> Tensor:
        chosen = numbers(axes)
        if not chosen and a.get("noop_with_empty_axes"):
            return x
        return function(x, tuple(chosen or range(x.ndim)), bool(a.get("keepdims", 1)))

    return reduced


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


_SAME_NAME = (
    *("Abs", "Add", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "MatMul", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sqrt", "Sub", "Tanh", "Where"),
)
_SAME_FUNCTIONAL = ("Elu", "Gelu", "HardSwish", "Mish", "Selu", "Softplus")
OPERATORS: Mapping[str, Operator] = {
    **MOVEMENT,
    **{name: getattr(torch, name.lower()) for name in _SAME_NAME},
    **{
        name: getattr(F, name.lower())
        for name in ("Elu", "Gelu", "HardSwish", "Mish", "Selu", "Softplus")
    },
    "And": torch.logical_and,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Constant": lambda value: value,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _divide,
    "Dropout": lambda x, *unused, **seed: x,
    "Einsum": lambda *x, equation: torch.einsum(equation, *x),
    "Equal": torch.eq,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True),
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "GridSample": _grid_sample,
    "GroupNormalization": _group_norm,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (x * alpha + beta).clamp(0, 1),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "LogSoftmax": lambda x, axis=-1: F.log_softmax(x, axis),
    "Max": lambda *x: reduce(torch.maximum, x),
    "MaxPool": _max_pool,
    "Min": lambda *x: reduce(torch.minimum, x),
    "Mod": lambda x, y, fmod=0: (torch.fmod if fmod else torch.remainder)(x, y),
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "ReduceL1": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Resize": _resize,
    "Softmax": lambda x, axis=-1: F.softmax(x, axis),
    "Sum": lambda *x: reduce(torch.add, x),
    "Swish": lambda x, alpha=1.0: x * torch.sigmoid(x * alpha),
}

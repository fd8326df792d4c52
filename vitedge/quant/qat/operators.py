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


def _numbers(values: Tensor | Sequence[int] | None) -> list[int]:
    """A tensor of shape, axes or indices as Python's integers; none where there is none."""
    return values.reshape(-1).tolist() if isinstance(values, Tensor) else list(values or ())


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


def _widths(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """The padding of each axis as F.pad takes it, the last axis first."""
    pairs = list(zip(before, after, strict=True))
    return [size for pair in reversed(pairs) for size in pair]


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **a: Any) -> Tensor:
    strides, dilations, before, after = _window(x, weight.shape[2:], a)
    none, groups = [0] * len(before), a.get("group", 1)
    if before != after:
        x, before = F.pad(x, _widths(before, after)), none
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
    padded = F.pad(x, _widths(before, after), value=-math.inf)
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
        size = _numbers(sizes)[-2:]
    else:
        assert scales is not None
        size = [math.floor(n * s) for n, s in zip(x.shape[-2:], scales.tolist()[-2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x, size)
    aligned = a.get("coordinate_transformation_mode") == "align_corners"
    antialias = bool(a.get("antialias"))
    return F.interpolate(x, size, mode=mode, align_corners=aligned, antialias=antialias)


def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = _numbers(shape)
    if not allowzero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze(tuple(_numbers(axes) or range(x.ndim)))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in _numbers(axes)):
        x = x.unsqueeze(axis)
    return x


def _slice(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = _numbers(starts), _numbers(ends)
    along, step = _numbers(axes) or range(len(first)), _numbers(steps) or [1] * len(first)
    for axis, start, end, by in zip(along, first, last, step, strict=True):
        if by > 0:
            x = x.movedim(axis, 0)[start:end:by].movedim(0, axis)
        else:  # torch has no such slices
            size = x.shape[axis]
            chosen = range(size)[start : None if end < -size else end : by]
            x = x.index_select(axis, torch.tensor(list(chosen), device=x.device))
    return x


def _split(
    x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, num_outputs: int = 1
) -> Sequence[Tensor]:
    return x.split(-(-x.shape[axis] // num_outputs) if sizes is None else _numbers(sizes), axis)


def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.ndim
    index = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    if batch_dims:
        raise NotImplementedError("batch_dims")
    return x[tuple(indices.unbind(-1))]


def _pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    mode: str = "constant",
) -> Tensor:
    before, after = torch.zeros(2, x.ndim, dtype=torch.int64)
    along = _numbers(axes) or list(range(x.ndim))
    before[along], after[along] = pads.view(2, -1)
    widths = _widths(before.tolist(), after.tolist())
    if mode == "constant":
        return F.pad(x, widths, mode, 0.0 if value is None else float(value))
    while widths[-2:] == [0, 0] and len(widths) > 4:  # torch wants the padded axes alone
        del widths[-2:]
    return F.pad(x, widths, {"edge": "replicate", "wrap": "circular"}.get(mode, mode))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduced(x: Tensor, axes: Tensor | Sequence[int] | None = None, **a: Any) -> Tensor:
        chosen = _numbers(axes)
        if not chosen and a.get("noop_with_empty_axes"):
            return x
        return function(x, tuple(chosen or range(x.ndim)), bool(a.get("keepdims", 1)))

    return reduced


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _filled(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    return (torch.zeros(1) if value is None else value).expand(_numbers(shape))


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


_SAME_NAME = (
    *("Abs", "Add", "Cos", "Erf", "Exp", "Floor", "Log", "MatMul", "Mul", "Neg", "Pow"),
    *("Reciprocal", "Relu", "Sigmoid", "Sin", "Sqrt", "Sub", "Tanh", "Where"),
)
OPERATORS: Mapping[str, Operator] = {
    **{name: getattr(torch, name.lower()) for name in _SAME_NAME},
    **{name: getattr(F, name.lower()) for name in ("Elu", "Gelu", "HardSwish", "Mish", "Softplus")},
    "And": torch.logical_and,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda *x, axis: torch.cat(x, axis),
    "Constant": lambda value: value,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": _divide,
    "Dropout": lambda x, *unused, **seed: x,
    "Einsum": lambda *x, equation: torch.einsum(equation, *x),
    "Equal": torch.eq,
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, _numbers(shape))),
    "Flatten": lambda x, axis=1: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True),
    "Greater": torch.gt,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (x * alpha + beta).clamp(0, 1),
    "Identity": lambda x: x,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Less": torch.lt,
    "LogSoftmax": lambda x, axis=-1: F.log_softmax(x, axis),
    "Max": lambda *x: reduce(torch.maximum, x),
    "MaxPool": _max_pool,
    "Min": lambda *x: reduce(torch.minimum, x),
    "Mod": lambda x, y, fmod=0: (torch.fmod if fmod else torch.remainder)(x, y),
    "Not": torch.logical_not,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda x, start=0, end=None: torch.tensor(list(x.shape)[start:end]),
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: F.softmax(x, axis),
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": lambda *x: reduce(torch.add, x),
    "Swish": lambda x, alpha=1.0: x * torch.sigmoid(x * alpha),
    "Tile": lambda x, repeats: x.repeat(_numbers(repeats)),
    "Transpose": lambda x, perm=(): x.permute(*(perm or reversed(range(x.ndim)))),
    "Unsqueeze": _unsqueeze,
}

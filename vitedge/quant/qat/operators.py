"""ONNX operators as torch functions, as far as ViTs use them: what makes a graph trainable.

onnx2torch 1.5 does this up to opset 17 and without Gelu.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

Attributes = Mapping[str, Any]
Operator = Callable[..., Tensor | Sequence[Tensor]]
"""Takes the attributes, then the inputs; an optional input that is absent is None."""

_INT64 = 2**63 - 1
_TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def attributes(node: NodeProto) -> dict[str, Any]:
    """The attributes of `node` by name; text as str, tensors as torch's."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = torch.from_numpy(numpy_helper.to_array(value).copy())
        values[attribute.name] = value.decode() if isinstance(value, bytes) else value
    return values


def _numbers(values: Tensor | Sequence[int]) -> list[int]:
    """A tensor of shape, axes or indices as Python's integers."""
    if isinstance(values, Tensor):
        return [int(value) for value in values.reshape(-1).tolist()]
    return list(values)


def _axes(a: Attributes, axes: Tensor | None) -> list[int]:
    """From the input, or from the attribute that older opsets have."""
    return _numbers(axes if axes is not None else a.get("axes", []))


def _cast(a: Attributes, x: Tensor) -> Tensor:
    return x.to(_TYPES[a["to"]])


def _clip(
    a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    return x if low is None and high is None else torch.clamp(x, low, high)


def _gelu(a: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=a.get("approximate", "none"))


def _gemm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x = x.T if a.get("transA") else x
    weight = weight.T if a.get("transB") else weight
    y = (x @ weight) * a.get("alpha", 1.0)
    return y if bias is None else y + bias * a.get("beta", 1.0)


def _layer_norm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    shape = x.shape[a.get("axis", -1) :]
    shift = None if bias is None else bias.expand(shape)
    return F.layer_norm(x, shape, weight.expand(shape), shift, a.get("epsilon", 1e-5))


def _batch_norm(
    a: Attributes, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, eps=a.get("epsilon", 1e-5))


def _instance_norm(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias, eps=a.get("epsilon", 1e-5))


def _padding(a: Attributes, x: Tensor, weight_shape: Sequence[int]) -> list[int]:
    """Of a convolution or a pooling: that of each axis before it, then after it."""
    rank = len(weight_shape)
    if a.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        return list(a.get("pads", [0] * 2 * rank))
    before, after = [], []
    for axis, kernel in enumerate(weight_shape):
        stride = a.get("strides", [1] * rank)[axis]
        reach = (kernel - 1) * a.get("dilations", [1] * rank)[axis] + 1
        size = x.shape[axis - rank]
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        lower = a["auto_pad"] == "SAME_LOWER"
        before.append(large if lower else small)
        after.append(small if lower else large)
    return before + after


def _pad_spatial(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    rank = len(pads) // 2
    pairs = [(pads[axis], pads[axis + rank]) for axis in reversed(range(rank))]
    return F.pad(x, [size for pair in pairs for size in pair], value=value) if any(pads) else x


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.ndim - 2
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    pads = _padding(a, x, weight.shape[2:])
    even = pads[:rank] == pads[rank:]
    return function(
        x if even else _pad_spatial(x, pads, 0.0),
        weight,
        bias,
        tuple(a.get("strides", [1] * rank)),
        tuple(pads[:rank]) if even else 0,
        tuple(a.get("dilations", [1] * rank)),
        a.get("group", 1),
    )


def _conv_transpose(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.ndim - 2
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    pads = list(a.get("pads", [0] * 2 * rank))
    if pads[:rank] != pads[rank:] or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("uneven padding")
    return function(
        x,
        weight,
        bias,
        tuple(a.get("strides", [1] * rank)),
        tuple(pads[:rank]),
        tuple(a.get("output_padding", [0] * rank)),
        a.get("group", 1),
        tuple(a.get("dilations", [1] * rank)),
    )


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    padded = _pad_spatial(x, _padding(a, x, kernel), -math.inf)
    strides, dilations = a.get("strides", [1] * rank), a.get("dilations", [1] * rank)
    return function(padded, kernel, strides, 0, dilations, bool(a.get("ceil_mode")))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = a["kernel_shape"]
    rank = len(kernel)
    function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    pads = _padding(a, x, kernel)
    if pads[:rank] != pads[rank:] or any(size != 1 for size in a.get("dilations", [])):
        raise NotImplementedError("uneven padding or dilation")
    strides, included = a.get("strides", [1] * rank), bool(a.get("count_include_pad"))
    return function(x, kernel, strides, pads[:rank], bool(a.get("ceil_mode")), included)


def _global_average_pool(a: Attributes, x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def _resize(
    a: Attributes,
    x: Tensor,
    region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Images (B, C, h, w); ViTs resize positions and features so, and nothing else."""
    coordinates = a.get("coordinate_transformation_mode", "half_pixel")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(a.get("mode", "nearest"), "nearest")
    if sizes is not None and sizes.numel():
        size = _numbers(sizes)[-2:]
    else:
        assert scales is not None
        size = [math.floor(n * s) for n, s in zip(x.shape[-2:], scales.tolist()[-2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x, size)
    aligned = coordinates == "align_corners"
    return F.interpolate(
        x, size, mode=mode, align_corners=aligned, antialias=bool(a.get("antialias"))
    )


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    sizes = _numbers(shape)
    if not a.get("allowzero"):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(a: Attributes, x: Tensor) -> Tensor:
    return x.permute(a.get("perm", list(reversed(range(x.ndim)))))


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _axes(a, axes)
    return x.squeeze(tuple(chosen)) if chosen else x.squeeze()


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _axes(a, axes)
    rank = x.ndim + len(chosen)
    for axis in sorted(axis % rank for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _expand(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, _numbers(shape)))


def _slice(
    a: Attributes,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first = _numbers(a["starts"] if starts is None else starts)
    last = _numbers(a["ends"] if ends is None else ends)
    along = _axes(a, axes) or list(range(len(first)))
    step = _numbers(steps) if steps is not None else [1] * len(first)
    for axis, start, end, by in zip(along, first, last, step, strict=True):
        size = x.shape[axis]
        stop = None if by < 0 and end < -size else end
        chosen = range(size)[start:stop:by]
        if by > 0:
            x = x.narrow(axis, chosen.start, max(0, chosen.stop - chosen.start))
            index = [slice(None)] * (axis % x.ndim) + [slice(None, None, by)]
            x = x[tuple(index)] if by > 1 else x
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), device=x.device))
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = a.get("axis", 0)
    if sizes is not None or "split" in a:
        return x.split(_numbers(a["split"] if sizes is None else sizes), axis)
    return x.split(-(-x.shape[axis] // a["num_outputs"]), axis)


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    index = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_nd(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    if a.get("batch_dims"):
        raise NotImplementedError("batch_dims")
    return x[tuple(indices.unbind(-1))]


def _pad(
    a: Attributes,
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    sizes = _numbers(pads)
    along = _numbers(axes) if axes is not None else list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for place, axis in enumerate(along):
        widths[axis] = (sizes[place], sizes[place + len(along)])
    kind = str(a.get("mode", "constant"))
    mode = {"edge": "replicate", "wrap": "circular"}.get(kind, kind)
    if mode == "constant":
        flat = [size for pair in reversed(widths) for size in pair]
        return F.pad(x, flat, mode, 0.0 if value is None else float(value))
    while widths[0] == (0, 0) and len(widths) > 2:  # torch wants the padded axes alone
        widths = widths[1:]
    return F.pad(x, [size for pair in reversed(widths) for size in pair], mode)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduced(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _axes(a, axes)
        if not chosen and a.get("noop_with_empty_axes"):
            return x
        return function(x, tuple(chosen or range(x.ndim)), bool(a.get("keepdims", 1)))

    return reduced


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    """A function of tensors alone."""
    return lambda a, *x: function(*x)


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a, *x: reduce(function, x)


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[a.get("start", 0) : a.get("end", _INT64)])


def _filled(a: Attributes, shape: Tensor) -> Tensor:
    value = a.get("value", torch.zeros(1))
    return value.expand(_numbers(shape))


def _range(a: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


OPERATORS: Mapping[str, Operator] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(torch.add),
    "And": _elementwise(torch.logical_and),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Constant": lambda a: a["value"],
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": _elementwise(torch.cos),
    "Div": _elementwise(_divide),
    "Dropout": lambda a, x, *unused: x,
    "Einsum": lambda a, *x: torch.einsum(a["equation"], *x),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Equal": _elementwise(torch.eq),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(torch.floor),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "Greater": _elementwise(torch.gt),
    "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _elementwise(F.hardswish),
    "Identity": _elementwise(lambda x: x),
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": _elementwise(torch.lt),
    "Log": _elementwise(torch.log),
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "MatMul": _elementwise(torch.matmul),
    "Max": _variadic(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _variadic(torch.minimum),
    "Mish": _elementwise(F.mish),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y),
    "Mul": _elementwise(torch.mul),
    "Neg": _elementwise(torch.neg),
    "Not": _elementwise(torch.logical_not),
    "PRelu": _elementwise(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Pad": _pad,
    "Pow": _elementwise(torch.pow),
    "Range": _range,
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _elementwise(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Sin": _elementwise(torch.sin),
    "Slice": _slice,
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "Softplus": _elementwise(F.softplus),
    "Split": _split,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(torch.sub),
    "Sum": _variadic(torch.add),
    "Swish": lambda a, x: x * torch.sigmoid(x * a.get("alpha", 1.0)),
    "Tanh": _elementwise(torch.tanh),
    "Tile": lambda a, x, repeats: x.repeat(_numbers(repeats)),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(torch.where),
}

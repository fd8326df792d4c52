"""ONNX operators that move values and compute none, as torch functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def numbers(values: Tensor | Sequence[int] | None) -> list[int]:
    """A tensor of shape, axes or indices as Python's integers; none where there is none."""
    return values.reshape(-1).tolist() if isinstance(values, Tensor) else list(values or ())


def widths(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """The padding of each axis as F.pad takes it, the last axis first."""
    pairs = list(zip(before, after, strict=True))
    return [size for pair in reversed(pairs) for size in pair]


def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    sizes = numbers(shape)
    if not allowzero:
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze(tuple(numbers(axes) or range(x.ndim)))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in numbers(axes)):
        x = x.unsqueeze(axis)
    return x


def _slice(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = numbers(starts), numbers(ends)
    along, step = numbers(axes) or range(len(first)), numbers(steps) or [1] * len(first)
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
    return x.split(-(-x.shape[axis] // num_outputs) if sizes is None else numbers(sizes), axis)


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
    along = numbers(axes) or list(range(x.ndim))
    before[along], after[along] = pads.view(2, -1)
    sizes = widths(before.tolist(), after.tolist())
    if mode == "constant":
        return F.pad(x, sizes, mode, 0.0 if value is None else float(value))
    while sizes[-2:] == [0, 0] and len(sizes) > 4:  # torch wants the padded axes alone
        del sizes[-2:]
    return F.pad(x, sizes, {"edge": "replicate", "wrap": "circular"}.get(mode, mode))


def _filled(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    return (torch.zeros(1) if value is None else value).expand(numbers(shape))


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Images (B, C, h, w)."""
    channels, height, width = x.shape[-3:]
    side, depth = (blocksize, blocksize), channels // blocksize**2
    if mode == "DCR":
        blocks = x.reshape(-1, *side, depth, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(-1, depth, *side, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(-1, depth, height * blocksize, width * blocksize)


def _space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """Images (B, C, h, w)."""
    channels, height, width = x.shape[-3:]
    rows, columns = height // blocksize, width // blocksize
    blocks = x.reshape(-1, channels, rows, blocksize, columns, blocksize).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(-1, channels * blocksize**2, rows, columns)


def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    index = torch.where(indices < 0, indices + x.shape[axis], indices)
    return x.gather(axis, index)


def _scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    if reduction not in ("none", "add"):
        raise NotImplementedError(f"reduction {reduction}")
    return torch.index_put(x, tuple(indices.unbind(-1)), updates, accumulate=reduction == "add")


MOVEMENT: Mapping[str, Callable[..., Tensor | Sequence[Tensor]]] = {
    "Concat": lambda *x, axis: torch.cat(x, axis),
    "ConstantOfShape": _filled,
    "DepthToSpace": _depth_to_space,
    "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, numbers(shape))),
    "Flatten": lambda x, axis=1: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Identity": lambda x: x,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scatter_nd,
    "Shape": lambda x, start=0, end=None: torch.tensor(list(x.shape)[start:end]),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda x, repeats: x.repeat(numbers(repeats)),
    "Transpose": lambda x, perm=(): x.permute(*(perm or reversed(range(x.ndim)))),
    "Unsqueeze": _unsqueeze,
}

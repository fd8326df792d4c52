"""Quantizers that gradients pass: rounding straight through, scales as LSQ learns them.

Less than half of what torch's learnable fake-quantize adds to a step, which returns a gradient of
the scale for every value of the tensor: benchmarks/qat_step compares them, and NNCF's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vitedge.core.spec import Floats
from vitedge.quant.placement import Activation, Weight
from vitedge.quant.ranges import FP16_LARGEST, FP16_SMALLEST
from vitedge.quant.weights import PAIR_SUM_MAX


class _PerTensor(torch.autograd.Function):
    """q = s · clamp(round(x / s)), with ∂q/∂s of LSQ (Esser 2020, equation 3)."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor, scale: Tensor, low: int, high: int, features: int) -> Tensor:
        """`features`: values of one image's."""
        # x / s, as runtimes compute it: torch's own multiplies by 1 / s, and rounds other ties
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, scale, ctx.low, ctx.high, ctx.features = inputs
        ctx.save_for_backward(x, output, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, output, scale = ctx.saved_tensors
        inside = (x > (ctx.low - 0.5) * scale) & (x < (ctx.high + 0.5) * scale)
        passed = gradient * inside
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None, None
        slope = (_dot(gradient, output) - _dot(passed, x)) / scale
        return passed, slope / math.sqrt(ctx.features * ctx.high), None, None, None

    @staticmethod
    def vmap(
        info: Any, axes: tuple[int | None, ...], x: Tensor, *others: Any
    ) -> tuple[Tensor, int | None]:
        return _PerTensor.apply(x, *others), axes[0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1)).float()


class _PerChannel(torch.autograd.Function):
    """The same for a weight, a scale for each output channel."""

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, axis: int, qmax: int, pair_safe: bool) -> Tensor:
        moved = weight.movedim(axis, -1)
        integers = (moved / scale).round_().clamp_(-qmax, qmax).contiguous()
        if pair_safe:
            _shrink_pairs(integers.view(-1, len(scale)))
        return (integers * scale).movedim(-1, axis)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, scale, ctx.axis, ctx.qmax, _ = inputs
        ctx.save_for_backward(weight, output, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, output, scale = ctx.saved_tensors
        weight, output, moved = (t.movedim(ctx.axis, -1) for t in (weight, output, gradient))
        inside = weight.abs() < (ctx.qmax + 0.5) * scale
        passed = moved * inside
        slope = None
        if ctx.needs_input_grad[1]:
            over = tuple(range(weight.ndim - 1))
            slope = (moved * output - passed * weight).sum(over) / scale
            slope = slope / math.sqrt(weight.numel() / len(scale) * ctx.qmax)
        return passed.movedim(-1, ctx.axis), slope, None, None, None


def _shrink_pairs(integers: Tensor) -> None:
    """As `vitedge.quant.weights` does: no two neighbours (2k, 2k+1) sum above PAIR_SUM_MAX."""
    rows = len(integers) // 2 * 2
    first, second = integers[0:rows:2], integers[1:rows:2]
    sums = (first + second).abs_()
    places = (sums > PAIR_SUM_MAX).nonzero(as_tuple=True)  # few
    over = sums[places] - PAIR_SUM_MAX
    sign, half = first[places].sign(), (over / 2).floor()
    first[places] -= sign * half
    second[places] -= sign * (over - half)


class _Scale(nn.Module):
    """PTQ's scale times a factor whose logarithm is learned: it stays positive, and a step is a
    share of it, however large it is.
    """

    def __init__(self, scale: Tensor, floats: Floats, learned: bool) -> None:
        super().__init__()
        self.register_buffer("start", scale, persistent=False)
        self.log = nn.Parameter(torch.zeros_like(scale), requires_grad=learned)
        self._floats = floats

    def forward(self) -> Tensor:
        scale: Tensor = self.get_buffer("start") * self.log.exp()
        if self._floats == "fp32":
            return scale
        stored = scale.clamp(FP16_SMALLEST, FP16_LARGEST).half().float()
        return scale + (stored - scale).detach()


class ActivationQuantizer(nn.Module):
    """Fake-quantizes an activation, one scale for all of it."""

    def __init__(self, placed: Activation, floats: Floats, *, learned: bool) -> None:
        super().__init__()
        self.scale = _Scale(torch.from_numpy(placed.scale.copy()), floats, learned)
        self.levels = placed.levels

    def forward(self, x: Tensor) -> Tensor:
        """As `x`, any shape."""
        return _PerTensor.apply(x, self.scale(), *self.levels, x.numel())


class WeightQuantizer(nn.Module):
    """Fake-quantizes a weight, a scale for each output channel."""

    def __init__(self, placed: Weight, scales: Tensor, floats: Floats, *, learned: bool) -> None:
        """`scales` (channels,)."""
        super().__init__()
        self.scale = _Scale(scales, floats, learned)
        self._placed = placed

    def forward(self, weight: Tensor) -> Tensor:
        """As `weight`, any shape."""
        placed = self._placed
        return _PerChannel.apply(weight, self.scale(), placed.axis, placed.qmax, placed.pair_safe)

"""What a layer costs, so that every config can add up its model in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class LayerCost:
    """Parameters, and multiply-accumulates of one image's convolutions and matrix products."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: int) -> LayerCost:
        return LayerCost(self.params * times, self.macs * times)


class Costed:
    """A config that adds up its own cost."""

    @property
    def cost(self) -> LayerCost:
        raise NotImplementedError

    @property
    def params(self) -> int:
        """Number of parameters."""
        return self.cost.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's convolutions and matrix products."""
        return self.cost.macs


def conv(
    channels_in: int,
    channels_out: int,
    kernel: int,
    size_out: tuple[int, ...],
    groups: int = 1,
    bias: bool = False,
    norm: bool = False,
) -> LayerCost:
    """A square convolution with an output of `size_out` positions; `norm`: a scale and a shift."""
    weight = channels_in // groups * channels_out * kernel**2
    extra = (1 if bias else 0) + (2 if norm else 0)
    return LayerCost(weight + extra * channels_out, weight * prod(size_out))


def linear(width_in: int, width_out: int, tokens: int = 1) -> LayerCost:
    """A matrix and a bias."""
    return LayerCost(width_in * width_out + width_out, width_in * width_out * tokens)


def halve(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width after a stride of two, with the padding that rounds up."""
    return -(-size[0] // 2), -(-size[1] // 2)

"""Shapes of the convolutional backbones: parameters and MACs in closed form, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from vitedge.models.zoo.cost import Costed, LayerCost, conv, halve, linear


@dataclass(frozen=True)
class BiTConfig:
    """The CNN of a hybrid ViT: the stem of BiT's ResNet, then stages of bottleneck blocks."""

    depths: tuple[int, ...]
    """Blocks of each stage; empty: the stem alone."""
    width: int = 64
    """Channels of the stem; stage i has 4·2^i times as many. Divisible by GroupNorm's 32."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(4 * self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def channels(self) -> int:
        """Channels of the feature map."""
        return (self.width, *self.widths)[-1]

    @property
    def stride(self) -> int:
        """Input pixels a step of the feature map, down and across."""
        return 4 * 2 ** max(len(self.depths) - 1, 0)

    def cost(self, image_size: tuple[int, int]) -> LayerCost:
        """Everything up to the feature map."""
        size = halve(image_size)
        total = conv(3, self.width, 7, size, norm=True)
        size = halve(size)
        channels = self.width
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            stride = 1 if stage == 0 else 2
            total += bottleneck(channels, width, size, stride)
            size = halve(size) if stride == 2 else size
            total += bottleneck(width, width, size, 1) * (depth - 1)
            channels = width
        return total


@dataclass(frozen=True)
class TrunkConfig:
    """A ResNet without its head: table 1 of He et al. 2015."""

    bottleneck: bool
    """Blocks of 1×1, 3×3 and 1×1 convolutions, four times as wide, rather than of two 3×3."""
    depths: tuple[int, ...]
    """Blocks of each stage."""
    width: int = 64
    """Channels of the stem and of the first stage's 3×3 convolutions."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        expansion = 4 if self.bottleneck else 1
        return tuple(expansion * self.width * 2**stage for stage in range(len(self.depths)))

    def sizes(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Height and width of each stage's output."""
        sizes = [halve(halve(image_size))]
        for _ in self.depths[1:]:
            sizes.append(halve(sizes[-1]))
        return tuple(sizes)

    def stage_cost(self, stage: int, image_size: tuple[int, int]) -> LayerCost:
        """One stage, counted from 0."""
        block = bottleneck if self.bottleneck else _basic
        stride = 1 if stage == 0 else 2
        size = self.sizes(image_size)
        into, out = (self.width, *self.widths)[stage], self.widths[stage]
        first = block(into, out, size[max(stage - 1, 0)], stride)
        return first + block(out, out, size[stage], 1) * (self.depths[stage] - 1)

    def cost(self, image_size: tuple[int, int]) -> LayerCost:
        """The stem and every stage."""
        stem = conv(3, self.width, 7, halve(image_size), norm=True)
        stages = (self.stage_cost(stage, image_size) for stage in range(len(self.depths)))
        return sum(stages, stem)


@dataclass(frozen=True)
class ResNetConfig(Costed):
    """A ResNet classifier: the trunk, the mean over positions, a linear head."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    trunk: TrunkConfig
    num_classes: int = 1000

    @property
    def cost(self) -> LayerCost:
        head = linear(self.trunk.widths[-1], self.num_classes)
        return self.trunk.cost(self.image_size) + head


def bottleneck(into: int, out: int, size: tuple[int, int], stride: int) -> LayerCost:
    """1×1, strided 3×3, 1×1, and a 1×1 shortcut where the shape changes; each with a norm."""
    size_out = halve(size) if stride == 2 else size
    total = conv(into, out // 4, 1, size, norm=True)
    total += conv(out // 4, out // 4, 3, size_out, norm=True)
    total += conv(out // 4, out, 1, size_out, norm=True)
    if stride != 1 or into != out:
        total += conv(into, out, 1, size_out, norm=True)
    return total


def _basic(into: int, out: int, size: tuple[int, int], stride: int) -> LayerCost:
    """Strided 3×3, 3×3, and a 1×1 shortcut where the shape changes; each with a norm."""
    size_out = halve(size) if stride == 2 else size
    total = conv(into, out, 3, size_out, norm=True) + conv(out, out, 3, size_out, norm=True)
    if stride != 1 or into != out:
        total += conv(into, out, 1, size_out, norm=True)
    return total

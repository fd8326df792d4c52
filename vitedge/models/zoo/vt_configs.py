"""Shapes of Visual Transformers (Wu et al. 2020) and of their FPN rival, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vitedge.models.zoo.cnn_configs import TrunkConfig
from vitedge.models.zoo.cost import Costed, LayerCost, conv, linear

Size = tuple[int, int]


@dataclass(frozen=True)
class VTConfig:
    """The shape of the tokens, and of the maps that act on them."""

    tokens: int
    """L: visual tokens a feature map is summarised in."""
    width: int
    """Channels of a token, C_T."""
    groups: int = 4
    """Groups of the maps K, Q and V inside a transformer; divides half the width."""
    map_groups: int = 1
    """Groups of the maps from tokens to pixels: W_{T→R} and W_K, or W_K W_Qᵀ."""
    paired: bool = False
    """Two matrices each for the feed-forward (F₁, F₂) and the projector (W_Q on pixels, W_K on
    tokens), as the equations have, rather than one each (F; W_K W_Qᵀ on tokens)."""

    def filter_tokenizer(self, channels: int, size: Size) -> LayerCost:
        coefficients = conv(channels, self.tokens, 1, size)
        return coefficients + _product(self.tokens, channels, size) + self.lift(channels)

    def recurrent_tokenizer(self, channels: int, size: Size) -> LayerCost:
        queries = conv(self.width, channels, 1, (self.tokens,), groups=self.map_groups)
        return queries + _product(self.tokens, channels, size) * 2 + self.lift(channels)

    def transformer(self, tokens: int) -> LayerCost:
        d, half = self.width, self.width // 2
        maps = conv(d, half, 1, (tokens,), self.groups) * 2 + conv(d, d, 1, (tokens,), self.groups)
        attention = LayerCost(macs=tokens * tokens * (half + d))
        feed_forward = conv(d, d, 1, (tokens,)) * (2 if self.paired else 1)
        return maps + attention + feed_forward + LayerCost(3 * 2 * d)

    def projector(self, channels: int, size: Size) -> LayerCost:
        maps = conv(self.width, channels, 1, (self.tokens,), groups=self.map_groups)
        if self.paired:
            maps += conv(channels, channels, 1, size)
        return maps + _product(self.tokens, channels, size) * 2 + self.lift(channels)

    def lift(self, channels: int) -> LayerCost:
        """Tokens from the width of the map or to it, where that is not theirs."""
        return (
            LayerCost() if channels == self.width else conv(channels, self.width, 1, (self.tokens,))
        )


@dataclass(frozen=True)
class VTResNetConfig(Costed):
    """A ResNet whose last stage is replaced by VT modules."""

    image_size: Size
    """Height and width of the input, pixels."""
    trunk: TrunkConfig
    """The stages that stay: three of four."""
    vt: VTConfig
    modules: int
    """VT modules in place of the last stage; the first has a filter tokenizer."""
    num_classes: int = 1000

    @property
    def stage_cost(self) -> LayerCost:
        """What takes the place of the last stage."""
        vt, channels, size = self.vt, self.trunk.widths[-1], self.trunk.sizes(self.image_size)[-1]
        later = vt.projector(channels, size) + vt.recurrent_tokenizer(channels, size)
        first = vt.filter_tokenizer(channels, size)
        return first + later * (self.modules - 1) + vt.transformer(vt.tokens) * self.modules

    @property
    def cost(self) -> LayerCost:
        head = linear(self.vt.width, self.num_classes)
        return self.trunk.cost(self.image_size) + self.stage_cost + head


@dataclass(frozen=True)
class FPNConfig(Costed):
    """Semantic segmentation: a ResNet, a feature pyramid (arXiv 1612.03144), a light head."""

    image_size: Size
    """Height and width of the input, pixels; multiples of 32. Logits have a quarter of each."""
    trunk: TrunkConfig
    width: int = 256
    """Channels of every level of the pyramid."""
    head_width: int = 128
    """Channels in which the head sums the levels."""
    num_classes: int = 171

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Height and width of each level, the finest first."""
        return self.trunk.sizes(self.image_size)

    @property
    def pyramid_cost(self) -> LayerCost:
        """The FPN module: a 1×1 and a 3×3 convolution a level."""
        outputs = (conv(self.width, self.width, 3, size, bias=True) for size in self.sizes)
        return sum(outputs, self.lateral_cost)

    @property
    def lateral_cost(self) -> LayerCost:
        """The 1×1 convolutions that bring every stage to the pyramid's width."""
        return sum(
            (
                conv(channels, self.width, 1, size, bias=True)
                for channels, size in zip(self.trunk.widths, self.sizes, strict=True)
            ),
            LayerCost(),
        )

    @property
    def cost(self) -> LayerCost:
        head = conv(self.head_width, self.num_classes, 1, self.sizes[0], bias=True)
        levels = (conv(self.width, self.head_width, 3, size, norm=True) for size in self.sizes)
        return self.trunk.cost(self.image_size) + self.pyramid_cost + sum(levels, head)


@dataclass(frozen=True, kw_only=True)
class VTFPNConfig(FPNConfig):
    """The same, with a VT module over all levels in place of the pyramid's 3×3 convolutions."""

    vt: VTConfig
    """Tokens of one level."""

    @property
    def pyramid_cost(self) -> LayerCost:
        """The VT-FPN module: a tokenizer and a projector a level, one transformer."""
        levels = (
            self.vt.filter_tokenizer(self.width, size) + self.vt.projector(self.width, size)
            for size in self.sizes
        )
        transformer = self.vt.transformer(self.vt.tokens * len(self.sizes))
        return sum(levels, self.lateral_cost + transformer)


def _product(tokens: int, channels: int, size: Size) -> LayerCost:
    """A matrix product between tokens and positions, over channels."""
    return LayerCost(macs=tokens * channels * prod(size))

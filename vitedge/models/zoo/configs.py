"""Shapes of the reference models, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a ViT: table 1 of the paper, plus input and output sizes."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    patch_size: int
    """Height and width of a patch, pixels; divides both of `image_size`."""
    depth: int
    """Number of encoder blocks, L."""
    width: int
    """Token width, D."""
    mlp_width: int
    """Hidden width of the MLP."""
    heads: int
    """Attention heads, k; divides `width`."""
    num_classes: int = 1000
    """0: no head, the pooled token itself is the output."""
    pool: Literal["token", "avg"] = "token"
    """What the head sees: the class token after the final norm, or (MAE, section A.1) the mean of
    the patch tokens, normalised after pooling."""
    distilled: bool = False
    """DeiT's second token and head; the answer is the mean of the two heads."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: the class token, and DeiT's distillation token."""
        return 2 if self.distilled else 1

    @property
    def tokens(self) -> int:
        """Sequence length: prefix and patches."""
        return self.prefix_tokens + self.grid[0] * self.grid[1]


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


@dataclass(frozen=True, kw_only=True)
class HybridConfig(ViTConfig):
    """A ViT whose patches are cut from a CNN's feature map: section 3.1 of the paper.

    Its `patch_size` is in pixels of the input: stride × patch of the map.
    """

    backbone: BiTConfig

    @property
    def feature_patch(self) -> int:
        """Height and width of a patch, positions of the feature map."""
        return self.patch_size // self.backbone.stride


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


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet classifier: the trunk, the mean over positions, a linear head."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    trunk: TrunkConfig
    num_classes: int = 1000


@dataclass(frozen=True)
class VTConfig:
    """The shape of a Visual Transformer's tokens (Wu et al. 2020), and of the maps on them."""

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


@dataclass(frozen=True)
class VTResNetConfig:
    """A ResNet whose last stage is replaced by VT modules."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    trunk: TrunkConfig
    """The stages that stay: three of four."""
    vt: VTConfig
    modules: int
    """VT modules in place of the last stage; the first has a filter tokenizer."""
    num_classes: int = 1000


@dataclass(frozen=True)
class FPNConfig:
    """Semantic segmentation: a ResNet, a feature pyramid (arXiv 1612.03144), a light head."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels; multiples of 32. Logits have a quarter of each."""
    trunk: TrunkConfig
    width: int = 256
    """Channels of every level of the pyramid."""
    head_width: int = 128
    """Channels in which the head sums the levels."""
    num_classes: int = 171
    logits_step: int = 4
    """Input pixels from one position of the logits to the next."""


@dataclass(frozen=True, kw_only=True)
class VTFPNConfig(FPNConfig):
    """The same, with a VT module over all levels in place of the pyramid's 3×3 convolutions."""

    vt: VTConfig
    """Tokens of one level."""


@dataclass(frozen=True)
class SETRConfig:
    """A ViT that segments: table 1 of Zheng et al. 2020, and one of its three decoders."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    patch_size: int
    """Height and width of a patch, pixels: a power of two that divides both of `image_size`."""
    depth: int
    """Encoder blocks, L_e."""
    width: int
    """Token width, C."""
    mlp_width: int
    heads: int
    decoder: Literal["naive", "pup", "mla"]
    decoder_width: int = 256
    """Channels of the decoder's layers; MLA's streams end in half of them."""
    first_width: int = 1024
    """Channels of PUP's first layer."""
    num_classes: int = 19
    prefix_tokens: ClassVar[int] = 0

    @property
    def encoder(self) -> ViTConfig:
        """The shape of its ViT, of which it has neither class token nor head."""
        return ViTConfig(
            self.image_size, self.patch_size, self.depth, self.width, self.mlp_width, self.heads
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.encoder.grid

    @property
    def tokens(self) -> int:
        """Sequence length: patches alone."""
        return self.grid[0] * self.grid[1]

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks, from 1, whose tokens the decoder reads: the last; MLA's are four, evenly."""
        if self.decoder == "mla":
            return tuple(self.depth * part // 4 for part in range(1, 5))
        return (self.depth,)

    @property
    def doublings(self) -> int:
        """Steps of 2 from patches to pixels."""
        return self.patch_size.bit_length() - 1

    @property
    def logits_step(self) -> int:
        """Input pixels from one position of the logits to the next."""
        return {"naive": self.patch_size, "pup": 2, "mla": 4}[self.decoder]


@dataclass(frozen=True)
class DETRConfig:
    """A detector by set prediction (Carion et al. 2020)."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels; multiples of 32."""
    trunk: TrunkConfig
    width: int = 256
    """Channels of the transformer, d."""
    heads: int = 8
    mlp_width: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 100
    """Objects of an image, at most."""
    num_classes: int = 91

    @property
    def grid(self) -> tuple[int, int]:
        """Positions of the map down and across."""
        step = 2 ** (1 + len(self.trunk.depths))
        return self.image_size[0] // step, self.image_size[1] // step


@dataclass(frozen=True)
class DABDETRConfig:
    """A small detector whose queries are boxes (Liu et al. 2022), on a plain ViT."""

    image_size: tuple[int, int]
    """Height and width of the input, pixels."""
    patch_size: int = 8
    """Height and width of a patch, pixels; divides both of `image_size`."""
    width: int = 96
    """Channels of the transformer."""
    heads: int = 3
    mlp_width: int = 384
    """Of the encoder."""
    decoder_mlp_width: int = 192
    encoder_layers: int = 4
    decoder_layers: int = 2
    queries: int = 20
    num_classes: int = 5

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        return self.encoder.grid

    @property
    def encoder(self) -> ViTConfig:
        """The shape of its ViT, of which it has neither class token nor head."""
        shape = (self.encoder_layers, self.width, self.mlp_width, self.heads)
        return ViTConfig(self.image_size, self.patch_size, *shape)


Config: TypeAlias = (
    ViTConfig | ResNetConfig | VTResNetConfig | FPNConfig | SETRConfig | DETRConfig | DABDETRConfig
)

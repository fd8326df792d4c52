"""Shapes of the reference models: parameters and MACs in closed form, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vitedge.models.zoo.cnn_configs import BiTConfig, ResNetConfig, TrunkConfig
from vitedge.models.zoo.cost import Costed, LayerCost, conv
from vitedge.models.zoo.vt_configs import FPNConfig, VTConfig, VTFPNConfig, VTResNetConfig

__all__ = [
    "BiTConfig",
    "Config",
    "FPNConfig",
    "HybridConfig",
    "ResNetConfig",
    "TrunkConfig",
    "VTConfig",
    "VTFPNConfig",
    "VTResNetConfig",
    "ViTConfig",
]


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

    @property
    def params(self) -> int:
        """Number of parameters."""
        d, m = self.width, self.mlp_width
        patch = 3 * self.patch_size**2 * d + d
        block = (4 * d * d + 4 * d) + (2 * d * m + d + m) + 4 * d
        head = self.prefix_heads * (d * self.num_classes + self.num_classes)
        tokens = self.prefix_tokens * d + self.tokens * d
        return patch + tokens + self.depth * block + 2 * d + head

    @property
    def prefix_heads(self) -> int:
        """Linear classifiers: one for each prefix token, none without classes."""
        return self.prefix_tokens if self.num_classes else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's convolution and matrix products."""
        t, d = self.tokens, self.width
        patch = self.grid[0] * self.grid[1] * d * 3 * self.patch_size**2
        block = 4 * t * d * d + 2 * t * t * d + 2 * t * d * self.mlp_width
        return patch + self.depth * block + self.prefix_heads * d * self.num_classes


@dataclass(frozen=True)
class HybridConfig(Costed):
    """A ViT whose patches are cut from a CNN's feature map: section 3.1 of the paper."""

    vit: ViTConfig
    """The encoder; its `patch_size` is in pixels of the input: stride × patch of the map."""
    backbone: BiTConfig

    @property
    def feature_patch(self) -> int:
        """Height and width of a patch, positions of the feature map."""
        return self.vit.patch_size // self.backbone.stride

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        return self.vit.image_size

    @property
    def num_classes(self) -> int:
        return self.vit.num_classes

    @property
    def cost(self) -> LayerCost:
        d, grid = self.vit.width, self.vit.grid
        encoder = LayerCost(self.vit.params, self.vit.macs)
        pixels = conv(3, d, self.vit.patch_size, grid, bias=True)
        features = conv(self.backbone.channels, d, self.feature_patch, grid, bias=True)
        return encoder + pixels * -1 + features + self.backbone.cost(self.image_size)


Config: TypeAlias = (
    ViTConfig | HybridConfig | ResNetConfig | VTResNetConfig | FPNConfig | VTFPNConfig
)

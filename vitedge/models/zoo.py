"""The models vitedge knows by name: shapes and facts, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vitedge.spec import Preprocess

VIT_PAPER = "https://arxiv.org/abs/2010.11929"


@dataclass(frozen=True)
class ViTConfig:
    """The shape of a ViT: table 1 of the paper, plus input and output sizes."""

    image_size: int
    """Height and width of the square input, pixels."""
    patch_size: int
    """Height and width of a patch, pixels; divides `image_size`."""
    depth: int
    """Number of encoder blocks, L."""
    width: int
    """Token width, D."""
    mlp_width: int
    """Hidden width of the MLP."""
    heads: int
    """Attention heads, k; divides `width`."""
    num_classes: int = 1000

    @property
    def tokens(self) -> int:
        """Sequence length N + 1: the patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def params(self) -> int:
        """Number of parameters."""
        d, m = self.width, self.mlp_width
        patch = 3 * self.patch_size**2 * d + d
        block = (4 * d * d + 4 * d) + (2 * d * m + d + m) + 4 * d
        head = 2 * d + d * self.num_classes + self.num_classes
        return patch + d + self.tokens * d + self.depth * block + head

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image's convolution and matrix products."""
        t, d = self.tokens, self.width
        patch = (t - 1) * d * 3 * self.patch_size**2
        block = 4 * t * d * d + 2 * t * t * d + 2 * t * d * self.mlp_width
        return patch + self.depth * block + d * self.num_classes


@dataclass(frozen=True)
class ZooModel:
    """A named model: what it is, and what it expects to see."""

    name: str
    config: ViTConfig
    preprocess: Preprocess
    paper: str
    task: str = "classification"

    def card(self) -> dict[str, object]:
        """What `vitedge models show` prints."""
        return {
            "name": self.name,
            "params": self.config.params,
            "macs": self.config.macs,
            "input_size": [self.config.image_size, self.config.image_size, 3],
            "num_classes": self.config.num_classes,
            "task": self.task,
            "paper": self.paper,
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Class names; numbers where the weights do not say."""
        return tuple(str(index) for index in range(self.config.num_classes))


# name: depth, width, MLP width, heads (table 1 of the ViT paper; Ti and S from DeiT)
_SIZES = {
    "tiny": (12, 192, 768, 3),
    "small": (12, 384, 1536, 6),
    "base": (12, 768, 3072, 12),
    "large": (24, 1024, 4096, 16),
    "huge": (32, 1280, 5120, 16),
}
# timm's names: size, patch, image
_VARIANTS = (
    ("tiny", 16, 224),
    ("small", 32, 224),
    ("small", 16, 224),
    ("base", 32, 224),
    ("base", 16, 224),
    ("base", 16, 384),
    ("large", 32, 224),
    ("large", 16, 224),
    ("huge", 14, 224),
)


def _vit(size: str, patch: int, image: int) -> ZooModel:
    depth, width, mlp_width, heads = _SIZES[size]
    # timm evaluates 224-pixel models on the central 90% and 384-pixel models on the whole image
    resize_px = int(image / 0.9) if image == 224 else image
    return ZooModel(
        name=f"vit_{size}_patch{patch}_{image}",
        config=ViTConfig(image, patch, depth, width, mlp_width, heads),
        preprocess=Preprocess(height=image, width=image, resize_px=resize_px),
        paper=VIT_PAPER,
    )


_DIGITS = ZooModel(
    name="digits",
    config=ViTConfig(32, 4, depth=4, width=96, mlp_width=384, heads=3, num_classes=10),
    preprocess=Preprocess(height=32, width=32, resize="exact"),
    paper=VIT_PAPER,
)

ZOO: dict[str, ZooModel] = {
    model.name: model for model in (_DIGITS, *(_vit(*variant) for variant in _VARIANTS))
}

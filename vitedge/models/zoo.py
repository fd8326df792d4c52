"""The models vitedge knows by name, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vitedge.models.configs import ViTConfig
from vitedge.spec import Preprocess, Task

VIT_PAPER = "https://arxiv.org/abs/2010.11929"
DEIT_PAPER = "https://arxiv.org/abs/2012.12877"
MAE_PAPER = "https://arxiv.org/abs/2111.06377"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ZooModel:
    """A named model: what it is, and what it expects to see."""

    name: str
    config: ViTConfig
    preprocess: Preprocess
    paper: str
    task: Task = "classification"

    def card(self) -> dict[str, object]:
        """What `vitedge models show` prints."""
        return {
            "name": self.name,
            "params": self.config.params,
            "macs": self.config.macs,
            "input_size": [*self.config.image_size, 3],
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
_VIT = (
    *(("tiny", 16, 224), ("tiny", 16, 384)),
    *(("small", 32, 224), ("small", 32, 384), ("small", 16, 224), ("small", 16, 384)),
    *(("base", 32, 224), ("base", 32, 384), ("base", 16, 224), ("base", 16, 384)),
    *(("large", 32, 224), ("large", 32, 384), ("large", 16, 224), ("large", 16, 384)),
    *(("large", 14, 224), ("huge", 14, 224)),
)


def _vit(size: str, patch: int, image: int) -> ZooModel:
    depth, width, mlp_width, heads = _SIZES[size]
    # timm evaluates 224-pixel models on the central 90% and 384-pixel models on the whole image
    resize_px = int(image / 0.9) if image == 224 else image
    return ZooModel(
        name=f"vit_{size}_patch{patch}_{image}",
        config=ViTConfig((image, image), patch, depth, width, mlp_width, heads),
        preprocess=Preprocess(height=image, width=image, resize_px=resize_px),
        paper=VIT_PAPER,
    )


def _mae(size: str, patch: int) -> ZooModel:
    """The fine-tuned encoder: mean of the patch tokens, then a norm, then the head."""
    depth, width, mlp_width, heads = _SIZES[size]
    return ZooModel(
        name=f"vit_{size}_patch{patch}_224.mae",
        config=ViTConfig((224, 224), patch, depth, width, mlp_width, heads, pool="avg"),
        preprocess=Preprocess(
            height=224, width=224, resize_px=256, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        paper=MAE_PAPER,
    )


def _deit(size: str, distilled: bool, image: int = 224) -> ZooModel:
    depth, width, mlp_width, heads = _SIZES[size]
    return ZooModel(
        name=f"deit_{size}_{'distilled_' if distilled else ''}patch16_{image}",
        config=ViTConfig((image, image), 16, depth, width, mlp_width, heads, distilled=distilled),
        preprocess=Preprocess(
            height=image,
            width=image,
            resize_px=int(image / 0.9) if image == 224 else image,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        paper=DEIT_PAPER,
    )


_DIGITS = ZooModel(
    name="digits",
    config=ViTConfig((32, 32), 4, depth=4, width=96, mlp_width=384, heads=3, num_classes=10),
    preprocess=Preprocess(height=32, width=32, resize="exact"),
    paper=VIT_PAPER,
)

ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _DIGITS,
        *(_vit(*variant) for variant in _VIT),
        *(_mae(*variant) for variant in (("base", 16), ("large", 16), ("huge", 14))),
        *(_deit(size, False) for size in ("tiny", "small", "base")),
        *(_deit(size, True) for size in ("tiny", "small", "base")),
    )
}

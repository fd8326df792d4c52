"""The models vitedge knows by name, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import msgspec

from vitedge.core.spec import Detection, Preprocess, Task
from vitedge.data.shapes import CLASSES, OBJECT_CLASSES
from vitedge.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from vitedge.models.zoo.configs import (
    BiTConfig,
    Config,
    DABDETRConfig,
    DETRConfig,
    FPNConfig,
    HybridConfig,
    ResNetConfig,
    SETRConfig,
    TrunkConfig,
    ViTConfig,
    VTConfig,
    VTFPNConfig,
    VTResNetConfig,
)
from vitedge.models.zoo.costs import COSTS

VIT_PAPER = "https://arxiv.org/abs/2010.11929"
DEIT_PAPER = "https://arxiv.org/abs/2012.12877"
MAE_PAPER = "https://arxiv.org/abs/2111.06377"
RESNET_PAPER = "https://arxiv.org/abs/1512.03385"
VT_PAPER = "https://arxiv.org/abs/2006.03677"
FPN_PAPER = "https://arxiv.org/abs/1612.03144"
DETR_PAPER = "https://arxiv.org/abs/2005.12872"
DAB_DETR_PAPER = "https://arxiv.org/abs/2201.12329"
SETR_PAPER = "https://arxiv.org/abs/2012.15840"

_IMAGENET: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def numbered(count: int) -> tuple[str, ...]:
    """Labels for classes whose names are not known."""
    return tuple(str(index) for index in range(count))


@dataclass(frozen=True)
class ZooModel:
    """A named model: what it is, and what it expects to see."""

    name: str
    config: Config
    preprocess: Preprocess
    paper: str
    task: Task = "classification"
    class_names: tuple[str, ...] = ()
    """In the order of the outputs; empty where the weights do not say."""
    data: str = ""
    """The embedded images that it was trained on, of a model whose weights are embedded, too."""
    detection: Detection | None = None
    """How the outputs of a detector are read: its module gives logits and boxes."""

    def card(self) -> dict[str, object]:
        """What `vitedge models show` prints."""
        params, macs = COSTS[self.name]
        return {
            "name": self.name,
            "params": params,
            "macs": macs,
            "input_size": [*self.config.image_size, 3],
            "num_classes": self.config.num_classes,
            "task": self.task,
            "paper": self.paper,
        }

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Class names; numbers where they are not known."""
        return self.class_names or numbered(self.config.num_classes)


# name: depth, width, MLP width, heads (table 1 of the ViT paper; Ti and S from DeiT)
_SIZES = {
    "tiny": (12, 192, 768, 3),
    "small": (12, 384, 1536, 6),
    "base": (12, 768, 3072, 12),
    "large": (24, 1024, 4096, 16),
    "huge": (32, 1280, 5120, 16),
}
# timm's names: size, patch, image
_VITS = (
    *(("tiny", 16, 224), ("tiny", 16, 384)),
    *(("small", 32, 224), ("small", 32, 384), ("small", 16, 224), ("small", 16, 384)),
    *(("base", 32, 224), ("base", 32, 384), ("base", 16, 224), ("base", 16, 384)),
    *(("large", 32, 224), ("large", 32, 384), ("large", 16, 224), ("large", 16, 384)),
    *(("large", 14, 224), ("huge", 14, 224)),
)
# timm's names: backbone and stride, size, blocks of the CNN's stages, input pixels a patch
_HYBRIDS: tuple[tuple[str, str, tuple[int, ...], int], ...] = (
    ("r_s16_p8", "tiny", (), 32),
    ("r26_s32", "small", (2, 2, 2, 2), 32),
    ("r50_s16", "base", (3, 4, 9), 16),
    ("r50_s32", "large", (3, 4, 6, 3), 32),
)


_DEIT_SIZES = ("tiny", "small", "base")


def _vit(size: str, patch: int, image: int, **shape: Any) -> ZooModel:
    config = ViTConfig((image, image), patch, *_SIZES[size], **shape)
    # timm evaluates 224-pixel models on the central 90% and 384-pixel models on the whole image
    resize_px = int(image / 0.9) if image == 224 else image
    preprocess = Preprocess(height=image, width=image, resize_px=resize_px)
    return ZooModel(f"vit_{size}_patch{patch}_{image}", config, preprocess, VIT_PAPER)


def _mae(size: str, patch: int) -> ZooModel:
    """The fine-tuned encoder: mean of the patch tokens, then a norm, then the head."""
    plain = _vit(size, patch, 224, pool="avg")
    preprocess = Preprocess(height=224, width=224, resize_px=256, **_IMAGENET)
    return replace(plain, name=f"{plain.name}.mae", preprocess=preprocess, paper=MAE_PAPER)


def _deit(size: str, distilled: bool) -> ZooModel:
    plain = _vit(size, 16, 224, distilled=distilled)
    name = f"deit_{size}_{'distilled_' if distilled else ''}patch16_224"
    preprocess = msgspec.structs.replace(plain.preprocess, **_IMAGENET)
    return replace(plain, name=name, preprocess=preprocess, paper=DEIT_PAPER)


def _hybrid(backbone: str, size: str, depths: tuple[int, ...], patch: int, image: int) -> ZooModel:
    config = HybridConfig((image, image), patch, *_SIZES[size], backbone=BiTConfig(depths))
    return replace(_vit(size, patch, image), name=f"vit_{size}_{backbone}_{image}", config=config)


# name: the trunk (bottlenecks or not, blocks of its stages), VT modules in place of the last stage
_RESNETS: dict[str, tuple[TrunkConfig, int, VTConfig]] = {
    "resnet18": (TrunkConfig(False, (2, 2, 2, 2)), 2, VTConfig(16, 1024, groups=2, paired=True)),
    "resnet34": (TrunkConfig(False, (3, 4, 6, 3)), 3, VTConfig(16, 1024, paired=True)),
    "resnet50": (TrunkConfig(True, (3, 4, 6, 3)), 3, VTConfig(16, 1024, map_groups=8)),
    "resnet101": (TrunkConfig(True, (3, 4, 23, 3)), 3, VTConfig(16, 1024, map_groups=8)),
}
_RESNET_INPUT = Preprocess(
    height=224, width=224, resize_px=256, interpolation="bilinear", **_IMAGENET
)
# COCO-stuff at the size for which the VT paper gives its MACs
_COCO_STUFF = Preprocess(
    height=800, width=1216, resize="exact", interpolation="bilinear", **_IMAGENET
)


def _resnet(name: str) -> ZooModel:
    trunk, _, _ = _RESNETS[name]
    return ZooModel(name, ResNetConfig((224, 224), trunk), _RESNET_INPUT, RESNET_PAPER)


def _vt_resnet(name: str) -> ZooModel:
    """16 tokens of 1024 channels; `VTResNet` says why the maps differ."""
    trunk, modules, vt = _RESNETS[name]
    stages = replace(trunk, depths=trunk.depths[:3])
    config = VTResNetConfig((224, 224), stages, vt, modules)
    return ZooModel(f"vt_{name}", config, _RESNET_INPUT, VT_PAPER)


def _fpn(name: str) -> ZooModel:
    trunk, _, _ = _RESNETS[name]
    config = FPNConfig((800, 1216), trunk)
    return ZooModel(f"fpn_{name}", config, _COCO_STUFF, FPN_PAPER, task="segmentation")


def _vt_fpn(name: str) -> ZooModel:
    """8 tokens of 1024 channels from each level."""
    trunk, _, _ = _RESNETS[name]
    config = VTFPNConfig((800, 1216), trunk, vt=VTConfig(tokens=8, width=1024))
    return ZooModel(f"vt_fpn_{name}", config, _COCO_STUFF, VT_PAPER, task="segmentation")


# Cityscapes at the size that SETR was trained on
_CITYSCAPES = Preprocess(
    height=768, width=768, resize="exact", interpolation="bilinear", **_IMAGENET
)
_SETR_DECODERS: tuple[Literal["naive", "pup", "mla"], ...] = ("naive", "pup", "mla")


def _setr(decoder: Literal["naive", "pup", "mla"], size: str) -> ZooModel:
    config = SETRConfig((768, 768), 16, *_SIZES[size], decoder=decoder)
    name = f"setr_{decoder}_{size}_patch16_768"
    return ZooModel(name, config, _CITYSCAPES, SETR_PAPER, task="segmentation")


_DIGITS = ZooModel(
    name="digits",
    config=ViTConfig((32, 32), 4, depth=4, width=96, mlp_width=384, heads=3, num_classes=10),
    preprocess=Preprocess(height=32, width=32, resize="exact"),
    paper=VIT_PAPER,
    data="digits",
)
_SHAPES_INPUT = Preprocess(height=64, width=64, resize="exact")
_SHAPES_DATA: dict[str, Any] = {"preprocess": _SHAPES_INPUT, "data": "shapes"}
_SHAPES = ZooModel(
    name="shapes",
    config=VTFPNConfig(
        (64, 64),
        TrunkConfig(bottleneck=False, depths=(1, 1, 1), width=24),
        width=48,
        head_width=32,
        num_classes=6,
        vt=VTConfig(tokens=8, width=128),
    ),
    paper=VT_PAPER,
    task="segmentation",
    class_names=CLASSES,
    **_SHAPES_DATA,
)
_SHAPES_SETR = ZooModel(
    name="shapes-setr",
    config=SETRConfig(
        *((64, 64), 8, 4, 96, 384, 3),
        decoder="pup",
        first_width=64,
        decoder_width=48,
        num_classes=6,
    ),
    paper=SETR_PAPER,
    task="segmentation",
    class_names=CLASSES,
    **_SHAPES_DATA,
)
_SHAPES_DETR = ZooModel(
    name="shapes-detr",
    config=DABDETRConfig((64, 64)),
    paper=DAB_DETR_PAPER,
    task="detection",
    class_names=OBJECT_CLASSES,
    detection=Detection(scores="sigmoid"),
    **_SHAPES_DATA,
)


def _detr(name: str) -> ZooModel:
    """At the size of COCO's mean photograph, its shorter side at 800 pixels."""
    trunk, _, _ = _RESNETS[name]
    preprocess = Preprocess(
        height=800, width=1120, resize="exact", interpolation="bilinear", **_IMAGENET
    )
    return ZooModel(
        name=f"detr_{name}",
        config=DETRConfig((800, 1120), trunk),
        preprocess=preprocess,
        paper=DETR_PAPER,
        task="detection",
        detection=Detection(scores="softmax"),
    )


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _DIGITS,
        _SHAPES,
        _SHAPES_SETR,
        _SHAPES_DETR,
        *(_vit(*variant) for variant in _VITS),
        *(_mae(*variant) for variant in (("base", 16), ("large", 16), ("huge", 14))),
        *(_deit(size, distilled) for distilled in (False, True) for size in _DEIT_SIZES),
        *(_hybrid(*cnn, image) for image in (224, 384) for cnn in _HYBRIDS),
        *(_resnet(name) for name in _RESNETS),
        *(_vt_resnet(name) for name in _RESNETS),
        *(_fpn(name) for name in ("resnet50", "resnet101")),
        *(_vt_fpn(name) for name in ("resnet50", "resnet101")),
        *(_setr(decoder, size) for size in ("base", "large") for decoder in _SETR_DECODERS),
        _detr("resnet50"),
    )
}
OWN_DATA = {name: model.data for name, model in ZOO.items() if model.data}
"""Models whose weights are embedded, and the embedded images they were trained on."""

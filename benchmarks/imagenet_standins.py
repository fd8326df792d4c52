"""Local files of the hubs' layouts: models of random weights, few layers, ten classes; images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support import two_towers
from vitedge.core.spec import Preprocess

CLASSES = ("tench", "goldfish", "shark", "ray", "cock", "hen", "ostrich", "finch", "robin", "jay")
SIDE = 64
IMAGES = {"train": 4, "val": 4}
"""Of each class."""
VIT = {"depth": 2, "embed_dim": 64, "num_heads": 2, "img_size": SIDE}
SWIN = {"depths": (1, 1), "embed_dim": 32, "num_heads": (2, 4)}
TIMM: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": VIT,
    "deit_small_patch16_224": VIT,
    "deit_base_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "swin_base_patch4_window7_224": {**SWIN, "img_size": 56},
    "swinv2_small_window8_256": {**SWIN, "img_size": SIDE},
}
"""What is cut of each."""


def write(folder: Path, models: Sequence[str]) -> tuple[Path, Path]:
    """Stand-ins of `models` by their folders, and images; returns where weights and images are."""
    weights, data = folder / "weights", folder / "data"
    for name in models:
        if not (weights / name / "config.json").exists():
            (weights / name).mkdir(parents=True, exist_ok=True)
            OTHERS.get(name, timm_model)(weights / name)
    if not (data / "classes.txt").exists():
        images(data)
    return weights, data


def images(data: Path) -> None:
    """train/ and val/ of a folder a class, and the names of the classes."""
    rng = np.random.default_rng(0)
    for part, count in IMAGES.items():
        for index in range(len(CLASSES)):
            place = data / part / f"n{index:08}"
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                blobs = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                image = Image.fromarray(blobs).resize((96, 80), Image.Resampling.BICUBIC)
                image.save(place / f"{number}.JPEG")
    (data / "classes.txt").write_text("\n".join(CLASSES))


def timm_model(folder: Path) -> None:
    """config.json and model.safetensors, as timm's hub has them."""
    import timm
    import torch
    from timm.models._hub import save_for_hf

    from vitedge.models.sources import random_weights

    torch.manual_seed(0)
    cut = TIMM[folder.name]
    side = cut["img_size"]
    module = timm.create_model(folder.name, num_classes=len(CLASSES), **cut).eval()
    random_weights.spread(module, Preprocess(height=side, width=side))
    save_for_hf(
        module,
        folder,
        model_args=cut,
        model_config={"num_classes": len(CLASSES), "input_size": (3, side, side)},
        safe_serialization=True,
    )


def dinov2(folder: Path) -> None:
    """DINOv2 with a linear head, and its image processor, as transformers saves them."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        id2label=dict(enumerate(CLASSES)),
    )
    transformers.Dinov2ForImageClassification(config).eval().save_pretrained(folder)
    size = {"height": 56, "width": 56}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)


def clip(folder: Path) -> None:
    """CLIP with its tokenizer."""
    two_towers.save("clip", folder)


OTHERS: dict[str, Callable[[Path], None]] = {
    "dinov2-small-imagenet1k-1-layer": dinov2,
    "clip-vit-base-patch16": clip,
}

"""Image processors of transformers beside ours, on photographs of odd sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from vitedge.core.spec import Preprocess
from vitedge.data.geometry import fit
from vitedge.graph.preprocess import apply_numpy
from vitedge.models.sources.preprocessing_hf import from_hf

SIZES = [  # height and width: landscape, portrait, nearly square, tiny, wide, tall
    *((217, 331), (301, 203), (113, 101), (37, 53), (61, 301), (288, 75)),
    *((427, 640), (640, 427), (223, 223), (480, 641), (799, 600), (55, 480)),
]


def photographs(count: int) -> list[Image.Image]:
    """RGB, `count` at most 36, no two of a size; each seventh is grey."""
    pictures = load_sample_images().images  # (427, 640, 3)
    photos = []
    for index in range(count):
        y, x = (37 * index) % 120, (53 * index) % 240
        cut = Image.fromarray(pictures[index % 2][y : y + 300, x : x + 400])
        height, width = (side + index // len(SIZES) for side in SIZES[index % len(SIZES)])
        photo = cut.resize((width, height), Image.Resampling.BICUBIC)
        photos.append(photo.convert("L").convert("RGB") if index % 7 == 5 else photo)
    return photos


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def edge(side: int, longest: int | None = None) -> dict[str, int]:
    return {"shortest_edge": side, **({"longest_edge": longest} if longest else {})}


_DETECTOR: list[dict[str, Any]] = [
    {"size": edge(100, 133)},
    {"size": edge(100, 133), "pad_size": square(140)},
    {"size": {"height": 96, "width": 120}},
]
_DETECTORS = ["ConditionalDetr", "DeformableDetr", "Detr", "GroundingDino", "RfDetr"]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    **dict.fromkeys(_DETECTORS, _DETECTOR),
    "Yolos": [{"size": edge(200, 266)}, {"size": {"height": 96, "width": 120}}],
    "CHMv2": [{"do_resize": True, "size": square(96)}],
    "DPT": [{}, {"size": square(154), "keep_aspect_ratio": True, "ensure_multiple_of": 14}],
    "DepthPro": [{"size": square(96)}],
    "Donut": [{"size": {"height": 160, "width": 120}}, {"size": {"height": 120, "width": 160}}],
    "EfficientNet": [
        {},
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False},
        {"do_center_crop": True, "resample": 2},
    ],
    "Eomt": [{"size": edge(96, 96)}, {"size": edge(96, 96), "do_pad": True}],
    "Mask2Former": [{"size": edge(100, 133)}, {"size": {"height": 90, "width": 130}}],
    "MaskFormer": [{"size": edge(100, 133), "size_divisor": 16}, {"size": square(96)}],
    "MobileViT": [{}, {"size": edge(288), "resample": 2, "do_flip_channel_order": False}],
    "OneFormer": [{"size": edge(100, 133)}],
    "Owlv2": [{"size": square(100)}],
    "PPDocLayoutV2": [{"size": square(96), "resample": 2}],
    "PPDocLayoutV3": [{"size": square(96), "resample": 2}],
    "PPDocLayoutV4": [{"size": square(96)}],
    "PPLCNet": [{}, {"size": square(240), "resize_short": None}],
    "Perceiver": [{}, {"do_center_crop": False}],
    "PoolFormer": [{}, {"crop_pct": 0.95, "resample": 2}],
    "PromptDepthAnything": [{"size": square(126), "ensure_multiple_of": 14}],
    "RTDetr": [{}, {"size": edge(100, 133), "do_pad": True, "pad_size": square(133)}],
    "SLANeXt": [{"size": square(97), "pad_size": square(97)}],
    "Sam": [
        {"size": {"longest_edge": 128}, "pad_size": square(128)},
        {"size": {"longest_edge": 96}, "pad_size": square(128)},
    ],
    "Sam2": [{"size": square(96)}],
    "Sam3": [{"size": square(96)}],
    "Sapiens2": [
        {"size": {"height": 128, "width": 96}},
        {"size": {"height": 128, "width": 96}, "do_pad": True},
    ],
    "TextNet": [{"size": edge(96)}],
    "UVDoc": [{"size": {"height": 89, "width": 61}}],
    "VitPose": [{"size": {"height": 64, "width": 48}}],
    "ZoeDepth": [
        {"size": {"height": 96, "width": 128}, "ensure_multiple_of": 32},
        {"size": {"height": 96, "width": 128}, "keep_aspect_ratio": False, "do_pad": False},
    ],
}
"""What is set of a class, where its defaults are slow to run, or not all that it does."""

KEEPS_SIZE = ("CHMv2", "Swin2SR")
"""By default, images keep the size they have, and there is nothing to compare."""


def ways(kind: str) -> list[dict[str, Any]]:
    """Settings under which all that a class does is seen: its defaults, and those of `SETTINGS`."""
    others = [settings for settings in SETTINGS.get(kind, []) if settings]
    return others if kind in KEEPS_SIZE else [{}, *others]


def backends(kind: str) -> dict[str, type]:
    """The classes of a kind in the library, by backend."""
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    names = {"pillow": f"{kind}ImageProcessorPil", "torchvision": f"{kind}ImageProcessor"}
    classes = {key: get_image_processor_class_from_name(name) for key, name in names.items()}
    return {key: value for key, value in classes.items() if value is not None}


def differences(
    processor: Any, kind: str, photos: list[Image.Image]
) -> Iterator[tuple[Preprocess, np.ndarray]]:
    """What we make of its file, and how far a photograph differs, (3, H, W) in grey levels.

    Where its images differ in size, the model's is that of the photograph at hand.
    """
    config = json.loads(processor.to_json_string())
    for photo in photos:
        box = {"boxes": [[[0, 0, *photo.size]]]} if kind == "VitPose" else {}
        theirs = np.asarray(processor(photo, return_tensors="pt", **box)["pixel_values"][0])
        height, width = theirs.shape[1:]
        preprocess = from_hf(config, "", (height, width))
        pixels = apply_numpy(fit(photo, preprocess)[np.newaxis], preprocess)[0]
        assert pixels.shape == theirs.shape
        std = preprocess.std if preprocess.channels == "RGB" else preprocess.std[::-1]
        yield preprocess, np.abs(pixels - theirs) * (255 * np.reshape(std, (3, 1, 1)))

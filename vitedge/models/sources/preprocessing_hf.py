"""Preprocessing as Hugging Face describes it, read into ours: exactly, or an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec

from vitedge.core.spec import Positive, Preprocess, Spread
from vitedge.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Triple,
    cannot_express,
    read_settings,
)


class _Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pixels: both sides, or the shortest edge, or that with a limit on the longest."""

    height: Positive | None = None
    width: Positive | None = None
    shortest_edge: Positive | None = None
    longest_edge: Positive | None = None


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A `preprocessor_config.json`; the defaults are those most image processors share."""

    # lists, not pairs: msgspec 0.22 crashes in a union of a bounded number and a tuple
    size: Positive | list[Positive] | _Size
    default_to_square: bool = True
    """Whether a `size` of one number means both sides, or the shortest edge."""
    crop_size: Positive | list[Positive] | _Size | None = None
    crop_pct: Spread = 0.875
    resample: int = 3
    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    rescale_factor: Annotated[float, msgspec.Meta(gt=0)] = 1 / 255
    do_normalize: bool = True
    image_mean: Triple = (0.5, 0.5, 0.5)
    image_std: Triple = (0.5, 0.5, 0.5)
    do_flip_channel_order: bool = False
    do_pad: bool = False
    pad_size: _Size | None = None


_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_IMAGENET = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_CLIP = {
    "size": 224,
    "default_to_square": False,
    "crop_size": 224,
    "do_center_crop": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_DETR = {
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "default_to_square": False,
    "resample": 2,
    **_IMAGENET,
}

# image processor, without its suffix: what its class does where the file says nothing
_DEFAULTS: dict[str, dict[str, object]] = {
    "Beit": {"size": 224, "crop_size": 224},
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "ConvNext": {"size": 384, "default_to_square": False},
    "DeiT": {"size": 256, "crop_size": 224, "do_center_crop": True},
    "Detr": _DETR,
    "MobileViT": {
        "size": 224,
        "default_to_square": False,
        "crop_size": 256,
        "do_center_crop": True,
        "do_flip_channel_order": True,
    },
    "Pvt": {"size": 224, **_IMAGENET},
    "Segformer": {"size": 512, "resample": 2, **_IMAGENET},
    "Siglip": {"size": {"height": 224, "width": 224}, "default_to_square": False},
    "ViT": {"size": 224, "resample": 2},
    "ViTHybrid": _CLIP,
    "Yolos": _DETR,
}
# what a class does whatever the file says
_ALWAYS: dict[str, dict[str, object]] = {
    "Detr": {"do_center_crop": False},
    "MobileViT": {"do_normalize": False},
    "Segformer": {"do_center_crop": False},
    "Yolos": {"do_center_crop": False},
}
_MODELS = {
    "Beit": ("beit", "data2vec-vision"),
    "Bit": ("dinov2", "dinov2_with_registers"),
    "CLIP": ("clip",),
    "ConvNext": ("convnext", "convnextv2", "cvt", "resnet"),
    "DeiT": ("deit",),
    "Detr": ("detr",),
    "MobileViT": ("mobilevit", "mobilevitv2"),
    "Pvt": ("pvt", "pvt_v2"),
    "Segformer": ("segformer",),
    "Siglip": ("siglip",),
    "ViT": ("swin", "swinv2", "vit", "vit_mae", "vit_msn"),
    "ViTHybrid": ("vit-hybrid",),
    "Yolos": ("yolos",),
}
_PROCESSOR_OF_MODEL = {model: kind for kind, models in _MODELS.items() for model in models}


def from_hf(
    config: Mapping[str, object], model_type: str, image_size: tuple[int, int]
) -> Preprocess:
    """Read a `preprocessor_config.json` of Hugging Face, of any age.

    `model_type`, from the model's config.json, decides where the file names no image processor.
    One whose images differ in size (DETR) becomes a squash to `image_size`, height and width of
    the exported model's input, pixels. Raises InputError, naming the key, for what Preprocess
    cannot express and for image processors not listed here.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
    kind = kind or _PROCESSOR_OF_MODEL.get(model_type, "")
    if kind not in _DEFAULTS:
        raise cannot_express("preprocessor_config.json", "image_processor_type", name or model_type)
    source = f"preprocessor_config.json of {kind}ImageProcessor"
    overrides = {key: value for key, value in config.items() if value is not None}
    settings = read_settings(_DEFAULTS[kind] | overrides | _ALWAYS.get(kind, {}), _Settings, source)
    if not settings.do_resize:
        raise cannot_express(source, "do_resize", settings.do_resize)
    if settings.resample not in _FILTERS:
        raise cannot_express(source, "resample", settings.resample)
    mean, std = _mean_std(settings)
    flip = kind == "MobileViT" and settings.do_flip_channel_order
    preprocess = read_settings(
        {
            **_geometry(settings, kind, image_size, source),
            "interpolation": _FILTERS[settings.resample],
            "crop_rounding": "down",
            "mean": mean,
            "std": std,
            "channels": "BGR" if flip else "RGB",
        },
        Preprocess,
        source,
    )
    pad = settings.pad_size if settings.do_pad else None
    if pad and (pad.height, pad.width) != (preprocess.height, preprocess.width):
        raise cannot_express(source, "pad_size", f"{pad.height}×{pad.width}")
    return preprocess


def _geometry(
    settings: _Settings, kind: str, image_size: tuple[int, int], source: str
) -> dict[str, object]:
    """The fields of Preprocess that say how to resize and crop."""
    size = _size(settings.size, settings.default_to_square)
    crop = None
    if settings.do_center_crop:
        if not settings.crop_size:
            raise cannot_express(source, "crop_size", settings.crop_size)
        crop = _size(settings.crop_size, square=True)
    if kind == "ConvNext":
        if crop:
            raise cannot_express(source, "do_center_crop", True)
        size, crop = _convnext(size.shortest_edge or 0, settings.crop_pct)
    if size.height and size.width:
        if crop in (None, size):
            return {"height": size.height, "width": size.width, "resize": "exact"}
        resize, resize_px = "exact", size.height if size.height == size.width else 0
    elif size.shortest_edge and not crop:
        return {"height": image_size[0], "width": image_size[1], "resize": "exact"}
    else:
        resize, resize_px = "shorter_side", 0 if size.longest_edge else size.shortest_edge or 0
    if not resize_px:
        raise cannot_express(source, "size", settings.size)
    if not (crop and crop.height and crop.width and max(crop.height, crop.width) <= resize_px):
        raise cannot_express(source, "crop_size", settings.crop_size)
    return {"height": crop.height, "width": crop.width, "resize": resize, "resize_px": resize_px}


def _convnext(edge_px: int, crop_pct: float) -> tuple[_Size, _Size | None]:
    """ConvNeXt's size is that of its input: large ones are squashed, small ones have a margin."""
    if edge_px >= 384:
        return _size(edge_px, square=True), None
    return _Size(shortest_edge=int(edge_px / crop_pct)), _size(edge_px, square=True)


def _size(size: int | list[int] | _Size, square: bool) -> _Size:
    if isinstance(size, int):
        return _Size(height=size, width=size) if square else _Size(shortest_edge=size)
    return size if isinstance(size, _Size) else _Size(*size[:2])


def _mean_std(settings: _Settings) -> tuple[list[float], list[float]]:
    """(x·factor − mean) / std, restated for x/255."""
    scale = 255 * settings.rescale_factor if settings.do_rescale else 255
    if math.isclose(scale, 1):
        scale = 1
    if not settings.do_normalize:
        return [0.0] * 3, [1 / scale] * 3
    return [m / scale for m in settings.image_mean], [s / scale for s in settings.image_std]

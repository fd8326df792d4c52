"""Preprocessing as Hugging Face describes it, read into ours: exactly, or an error."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from vitedge.core.errors import InputError, nearest
from vitedge.core.spec import Preprocess
from vitedge.models.preprocessing import FIX, cannot_express, from_timm, read_settings
from vitedge.models.sources.geometry_hf import Geometry, Settings
from vitedge.models.sources.image_processors import (
    NOT_OF_ONE_IMAGE,
    PROCESSOR_OF_MODEL,
    PROCESSORS,
)

_FILTERS = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))
"""Pillow's numbers."""
_NULL: dict[str, object] = {
    name: False for name in Settings.__struct_fields__ if name.startswith("do_")
}
_NULL |= {"resample": 2, "include_top": False, "rescale_offset": False}
"""What null means; for sizes, none."""


def from_hf(
    config: Mapping[str, object],
    model_type: str,
    image_size: tuple[int, int] | None,
    notes: list[str] | None = None,
) -> Preprocess:
    """Read a `preprocessor_config.json` of Hugging Face, of any age.

    `model_type`, from the model's config.json, decides where the file names no image processor.
    One whose images differ in size (DETR) becomes a squash to `image_size`, height and width of
    the exported model's input, pixels, and `notes` get a line; None: what the processor aims at.
    Raises InputError, naming the key, for what Preprocess cannot express and for image processors
    that are not of one image or not known.
    """
    for key in ("image_processor", "pretrained_cfg"):
        if key in config and not isinstance(config[key], dict):
            raise InputError(f"`{key}` is {config[key]}, and says nothing of images", fix=FIX)
    if "image_processor" in config:  # a processor_config.json holds it beside a tokenizer's
        nested: Any = config["image_processor"]
        return from_hf(nested, model_type, image_size, notes)
    if "pretrained_cfg" in config:  # TimmWrapper's, and any file of timm's hub
        timm: Any = config["pretrained_cfg"]
        return msgspec.structs.replace(from_timm(timm), exif="apply")
    kind = _kind(config, model_type)
    processor, source = PROCESSORS[kind], f"preprocessor_config.json of {kind}ImageProcessor"
    overrides = {k: _NULL.get(k) if value is None else value for k, value in config.items()}
    settings = read_settings(processor.settings | overrides | processor.always, Settings, source)
    if settings.resample not in _FILTERS:
        raise cannot_express(source, "resample", settings.resample)
    geometry = Geometry(processor, settings, source)
    fields = geometry.fields()
    if "height" not in fields:
        height, width = image_size or geometry.nominal or (0, 0)
        if not (height and width):
            raise InputError(
                f"{source}: the images that it makes differ in size",
                fix="pass `height` and `width`",
            )
        fields |= {"height": height, "width": width}
        if notes is not None:
            notes.append(
                f"the images that {kind}ImageProcessor makes differ in size: here they are "
                f"squashed to {height}×{width}"
            )
    mean, std = _mean_std(settings)
    asked = processor.channels == "asked" and settings.do_flip_channel_order
    colours = {
        "interpolation": _FILTERS[settings.resample],
        "sampling": processor.sampling,
        "crop_rounding": "down",
        "mean": mean,
        "std": std,
        "channels": "BGR" if asked or processor.channels == "BGR" else "RGB",
    }
    return read_settings(fields | colours, Preprocess, source)


def _kind(config: Mapping[str, object], model_type: str) -> str:
    """The class of a file without its suffixes. Raises InputError for those that are not here."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
    kind = kind or PROCESSOR_OF_MODEL.get(model_type, "")
    if kind in PROCESSORS:
        return kind
    where = "preprocessor_config.json"
    if kind in NOT_OF_ONE_IMAGE:
        raise InputError(
            f"{where}: models of {kind}ImageProcessor do not run on an image alone: "
            f"they need {NOT_OF_ONE_IMAGE[kind]}",
            fix=FIX,
        )
    if not name:
        unnamed = f"of model type '{model_type}'" if model_type else "and no config.json beside it"
        raise InputError(f"{where} names no `image_processor_type`, {unnamed}", fix=FIX)
    suffix = "ImageProcessor" if kind == name else ""  # it may be that which is misspelt
    raise InputError(
        f"{where}: `image_processor_type` {name} is not known",
        fix=f"{FIX}; {nearest(kind, [known + suffix for known in PROCESSORS])}",
    )


def _mean_std(settings: Settings) -> tuple[list[float], list[float]]:
    """(x·factor − offset − mean) / std, restated for x/255."""
    scale = 255 * settings.rescale_factor if settings.do_rescale else 255
    if math.isclose(scale, 1):
        scale = 1
    offset = 1 if settings.rescale_offset and settings.do_rescale else 0
    mean, std = [float(offset)] * 3, [1.0] * 3
    if settings.do_normalize:
        mean, std = [offset + m for m in settings.image_mean], list(settings.image_std)
    if settings.include_top:  # EfficientNet divides once more
        std = [s * again for s, again in zip(std, settings.image_std, strict=True)]
    return [m / scale for m in mean], [s / scale for s in std]

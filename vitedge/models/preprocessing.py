"""Preprocessing as timm and torchvision describe it, read into ours: exactly, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from vitedge.core.errors import InputError
from vitedge.core.spec import Positive, Preprocess, Spread

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Triple = tuple[float, float, float]
KindT = TypeVar("KindT")


class _Timm(msgspec.Struct, frozen=True):
    """What evaluation uses of a `pretrained_cfg`, with the defaults of `resolve_data_config`."""

    input_size: tuple[Positive, Positive, Positive] = (3, 224, 224)
    interpolation: str = "bicubic"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    crop_pct: Spread = 0.875
    crop_mode: str = "center"


_CROP_MODES: Mapping[str, Mapping[str, object]] = {
    "center": {"resize": "shorter_side"},
    "squash": {"resize": "exact"},
    "border": {"resize": "inside", "pad": "center"},
}


def from_timm(config: Mapping[str, object]) -> Preprocess:
    """Read timm's `pretrained_cfg`, or what `resolve_data_config` makes of it.

    Equal to `create_transform(**resolve_data_config({}, pretrained_cfg=config))`. Raises
    InputError, naming the key, for what Preprocess cannot express: other than 3 channels, and a
    margin to crop off what is not square.
    """
    source = "timm's pretrained_cfg"
    timm = read_settings(config, _Timm, source)
    channels, height, width = timm.input_size
    geometry = _CROP_MODES.get(timm.crop_mode)
    if geometry is None:
        raise cannot_express(source, "crop_mode", timm.crop_mode)
    square, whole = height == width, timm.crop_pct == 1
    if channels != 3 or not (square or whole):
        raise cannot_express(source, "input_size", timm.input_size)
    if timm.crop_mode == "border":
        color = tuple(round(255 * level) for level in timm.mean)
        geometry = {**geometry, "resize_rounding": "nearest", "pad_color": color}
    elif timm.crop_mode == "center" and not square:  # by the same ResizeKeepRatio
        geometry = {**geometry, "resize_rounding": "nearest"}
    as_is = whole and not (square and timm.crop_mode == "center")
    return read_settings(
        {
            "height": height,
            "width": width,
            "exif": "ignore",  # its datasets open and convert a file
            **geometry,
            "resize_px": 0 if as_is else math.floor(height / timm.crop_pct),
            "interpolation": timm.interpolation,
            "mean": timm.mean,
            "std": timm.std,
        },
        Preprocess,
        source,
    )


def from_torchvision(transforms: Any, image_size: tuple[int, int]) -> Preprocess:
    """Read `weights.transforms()`: an ImageClassification or SemanticSegmentation preset.

    Segmentation keeps the aspect ratio and crops nothing, so its images differ in size: here they
    are squashed to `image_size`, height and width of the exported model's input, pixels. Raises
    InputError for any other transform.
    """
    name = type(transforms).__name__
    source = f"torchvision's {name}"
    if name not in ("ImageClassification", "SemanticSegmentation"):
        raise cannot_express(source, "transforms", name)
    if not transforms.antialias:  # Pillow always does
        raise cannot_express(source, "antialias", transforms.antialias)
    height, width = image_size
    geometry: dict[str, object] = {"height": height, "width": width, "resize": "exact"}
    if name == "ImageClassification":
        (crop_px,), (resize_px,) = transforms.crop_size, transforms.resize_size
        geometry = {"height": crop_px, "width": crop_px, "resize_px": resize_px}
    pixels = {
        "exif": "ignore",  # as its image folders open a file
        "interpolation": transforms.interpolation.value,
        "mean": transforms.mean,
        "std": transforms.std,
    }
    return read_settings(geometry | pixels, Preprocess, source)


def read_settings(settings: Mapping[str, object], kind: type[KindT], source: str) -> KindT:
    """Make a `kind` of `settings`; null means the default, and keys it does not have are ignored.

    Raises InputError, naming `source` and the key, for a value that does not belong there.
    """
    values = {key: value for key, value in settings.items() if value is not None}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{source}: {error}", fix=FIX) from error


def cannot_express(source: str, key: str, value: object) -> InputError:
    """The error for a setting that Preprocess has no equal for."""
    return InputError(f"{source}: `{key}` {value} cannot be reproduced exactly", fix=FIX)


FIX = (
    "pass `preprocess=FILE.toml` (or .json) with what comes closest (see 'Preprocessing' in the "
    "README)"
)

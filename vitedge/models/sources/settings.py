"""What lies beside a model, or in it, and says how images are made and what classes are called."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from pathlib import Path

from vitedge.core.json_document import read_settings
from vitedge.core.spec import Preprocess
from vitedge.core.toml import convert, load_toml
from vitedge.models.sources.preprocessing_hf import from_hf

PROCESSOR, CONFIG = "preprocessor_config.json", "config.json"
NESTED = "processor_config.json"
"""Where transformers 5 keeps an image processor beside a tokenizer."""
_PROCESSOR_KEYS = {
    *("image_processor", "pretrained_cfg"),
    *("image_processor_type", "feature_extractor_type", "image_mean", "image_std"),
    *("do_resize", "do_rescale", "do_normalize"),
}
_RANGES = {"NominalRange_0_255": (0.0, 1 / 255), "Normalized_0_1": (0.0, 1.0)}
_RANGES["Normalized_1_1"] = (0.5, 0.5)
"""Windows ML's `Image.NominalPixelRange`, as mean and std on the 0-1 scale."""
_ORDERS = {"Bgr8": "BGR", "Bgra8": "BGR", "Rgb8": "RGB", "Rgba8": "RGB"}
"""Its `Image.BitmapPixelFormat`."""


def read_preprocess(
    path: Path, image_size: tuple[int, int] = (0, 0), notes: list[str] | None = None
) -> Preprocess:
    """A .toml or .json of ours, or a file that says what an image processor does.

    `image_size`, height and width in pixels, is for processors whose images differ in size; `notes`
    get a line then. Raises InputError, naming the file and the key.
    """
    if path.suffix != ".json":
        return load_toml(path, Preprocess)
    settings = read_settings(path)
    if not _PROCESSOR_KEYS & set(settings):
        return convert(settings, Preprocess, str(path))
    config = path.with_name(CONFIG)
    return from_hf(settings, _model_type(config), image_size, notes)


def model_type(path: Path) -> str:
    """What the config.json beside a model says that it is; empty where it does not."""
    config = beside(path, CONFIG)
    return _model_type(config) if config else ""


def _model_type(config: Path) -> str:
    return str(read_settings(config).get("model_type", "")) if config.is_file() else ""


def processor_beside(path: Path) -> Path | None:
    """The file of an image processor beside a model."""
    nested, own = (beside(path, name) for name in (NESTED, PROCESSOR))
    return nested if nested and "image_processor" in read_settings(nested) else own


def beside(path: Path, name: str) -> Path | None:
    """The file `name` beside `path`, or above a folder called `onnx`, where exporters put it."""
    folders = [path.parent, *([path.parent.parent] if path.parent.name == "onnx" else [])]
    return next((file for folder in folders if (file := folder / name).is_file()), None)


def preprocess_in(metadata: Mapping[str, str], size: tuple[int, int]) -> Preprocess | None:
    """What Windows ML's metadata say; None without them."""
    pixels = _RANGES.get(metadata.get("Image.NominalPixelRange", ""))
    order = _ORDERS.get(metadata.get("Image.BitmapPixelFormat", ""))
    if pixels is None or order is None or 0 in size:
        return None
    mean, std = pixels
    settings = {"mean": [mean] * 3, "std": [std] * 3, "channels": order}
    return convert({"height": size[0], "width": size[1], **settings}, Preprocess, "its metadata")


def labels_of(path: Path, metadata: Mapping[str, str]) -> tuple[object, str]:
    """The class names in a model's metadata or the config.json beside it, and where they are.

    As they are written there: a sequence, or a mapping from indices; None without any. Raises
    InputError for a config.json that cannot be read.
    """
    for key in ("names", "id2label"):  # a dict as Python or JSON writes it
        try:
            names = ast.literal_eval(metadata.get(key, ""))
        except (ValueError, SyntaxError):
            continue
        if names and isinstance(names, list | tuple | dict):
            return names, f"{path}: its metadata '{key}'"
    config = beside(path, CONFIG)
    if config is None:
        return None, ""
    return read_settings(config).get("id2label"), str(config)


def of_size(preprocess: Preprocess, height: int | None, width: int | None) -> Preprocess:
    """`preprocess` for images of another size, with as much of a margin."""
    from msgspec.structs import replace

    new_height, new_width = height or preprocess.height, width or preprocess.width
    grown = max(new_height / preprocess.height, new_width / preprocess.width)
    names = ("resize_px", "resize_limit_px")
    sides = {name: math.ceil(getattr(preprocess, name) * grown) for name in names}
    return replace(preprocess, height=new_height, width=new_width, **sides)

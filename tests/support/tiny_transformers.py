"""Every vision model that transformers lists for one image, cut down by rule and saved as a user's.

The lists are its own AutoModel mappings, the configurations its own defaults.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from tests.support.sweep import AS_IT_COMES, Model
from tests.support.tiny_configs import SIDE, config_of
from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Preprocess
from vitedge.models.sources.settings import PROCESSOR, read_preprocess

HEADS = (
    "IMAGE_CLASSIFICATION",
    "SEMANTIC_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION",
    "INSTANCE_SEGMENTATION",
    "IMAGE_SEGMENTATION",
    "OBJECT_DETECTION",
    "ZERO_SHOT_OBJECT_DETECTION",
    "DEPTH_ESTIMATION",
    "MASKED_IMAGE_MODELING",
    "IMAGE_MATTING",
    "IMAGE_TO_IMAGE",
    "KEYPOINT_DETECTION",
    "KEYPOINT_MATCHING",
    "MASK_GENERATION",
    "VIDEO_CLASSIFICATION",
    "BACKBONE",
    "IMAGE",
)
"""AutoModel mappings, by what stands between MODEL_FOR_ and _MAPPING_NAMES."""
FURTHER = {"vit_mae": "ViTMAEForPreTraining", "vitpose": "VitPoseForPoseEstimation"}
"""Models of one image that are in no mapping of one."""
ELSEWHERE = ("timm_wrapper", "timm_backbone")
"""Model types whose models are another library's, and in its sweep."""
LARGEST = 300_000_000
"""Parameters of what is made here; language models that read images are larger."""


def models() -> list[Model]:
    """All of them, each class once; a bare encoder only where its type has nothing else."""
    from transformers.models.auto import modeling_auto

    listed: dict[str, Model] = {}
    types = set()
    for head in HEADS:
        mapping = getattr(modeling_auto, f"MODEL_FOR_{head}_MAPPING_NAMES")
        for model_type, names in mapping.items():
            name = names if isinstance(names, str) else names[0]
            if (
                name in listed
                or model_type in ELSEWHERE
                or (head == "IMAGE" and model_type in types)
            ):
                continue
            listed[name] = Model(model_type, head, name)
            types.add(model_type)
    for model_type, name in FURTHER.items():
        listed.setdefault(name, Model(model_type, "FURTHER", name))
    return sorted(listed.values())


def write(model: Model, folder: str) -> dict[str, Any]:
    """Save `model`, small, with its image processor: parameters, plan, what its module gives."""
    import torch
    import transformers

    kind = getattr(transformers, model.architecture)
    error: Exception | None = None
    for narrow, side in ((True, SIDE), (False, SIDE), (True, None), (False, None)):
        try:
            config, side_px = config_of(model.group, kind, narrow, side)
            parameters = _parameters(kind, config)
            torch.manual_seed(0)
            module = kind(config).eval()
            plan = f"{side_px} px{', narrow' if narrow else ''}"
            _save_processor(model.group, side_px, folder)
            _spread(module, _pixels(folder, side_px))
            with torch.no_grad():
                outputs = module(pixel_values=torch.rand(1, 3, side_px, side_px))
        except Exception as failure:
            error = error or failure
            continue
        module.save_pretrained(folder)
        given = {name: n for name, value in outputs.items() if (n := _tensors(value))}
        return {"plan": plan, "params": parameters, "given": given}
    # what takes more than pixels is saved as it comes, for the product to say so
    config, side_px = config_of(model.group, kind, True, SIDE)
    try:
        _parameters(kind, config)
        kind(config).save_pretrained(folder)
    except _TooLargeError:
        config.save_pretrained(folder)
    except Exception as failure:
        return {"not_made": _unmade(kind, failure)}
    _save_processor(model.group, side_px, folder)
    needs = [
        name
        for name, parameter in inspect.signature(kind.forward).parameters.items()
        if parameter.default is parameter.empty
        and name not in ("self", "pixel_values")
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    line = str(error).strip().splitlines() or [type(error).__name__]
    return {"plan": AS_IT_COMES, "given": {}, "needs": needs, "on_pixels_alone": line[0][:200]}


def _parameters(kind: Any, config: Any) -> int:
    """How many it has. Raises for a model that is too large to be made here."""
    import torch

    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in kind(config).parameters())
    if count > LARGEST:
        raise _TooLargeError(f"{count} parameters")
    return count


class _TooLargeError(Exception):
    """Of a model to be made here."""


def _unmade(kind: Any, error: Exception) -> str:
    """Why there is no model, in a line: of what is missing, the library's defaults, or ours."""
    import torch

    if isinstance(error, ImportError):
        return error_line(error)
    try:
        with torch.device("meta"):
            kind(kind.config_class())
    except Exception as failure:
        said = f"{type(failure).__name__}: {error_line(failure)}"
        return f"transformers builds no model of its defaults: {said}"
    return f"the sweep's configuration makes no model: {type(error).__name__}: {error_line(error)}"


def _tensors(value: Any) -> int:
    """How many there are in what a module gave under one name."""
    import torch

    if isinstance(value, (tuple, list)):
        return sum(map(_tensors, value))
    return isinstance(value, torch.Tensor)


def _pixels(folder: str, side: int) -> Preprocess:
    """Images of `side` pixels with the values that the image processor in `folder` gives them."""
    size = {"height": side, "width": side}
    try:
        stated = read_preprocess(Path(folder, PROCESSOR), (side, side))
    except InputError:  # the export will say so
        return Preprocess(**size)
    return Preprocess(**size, mean=stated.mean, std=stated.std, channels=stated.channels)


def _spread(module: Any, preprocess: Preprocess) -> None:
    """Weights with which outputs vary, as training leaves them."""
    from torch import nn

    from vitedge.models.sources import random_weights

    class OfPixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(pixel_values=x)

    random_weights.spread(OfPixels(), preprocess)


def _save_processor(model_type: str, side: int, folder: str) -> None:
    """The image processor that transformers has for a type of model, for images of `side`."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    stem = re.sub(r"([_-](backbone|vision_model|swin|model))+$", "", model_type)
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or IMAGE_PROCESSOR_MAPPING_NAMES.get(stem)
    names = names or IMAGE_PROCESSOR_MAPPING_NAMES["vit"]
    kind = getattr(transformers, names.get("torchvision") or names["pil"])
    defaults = kind().to_dict()
    options = {}
    for name in ("size", "crop_size"):
        size = defaults.get(name)
        if isinstance(size, dict):
            known = {key: value for key, value in size.items() if value}
            edge = known.get("shortest_edge") or side
            ratio = known.get("longest_edge", edge) / edge
            options[name] = {
                key: round(side * ratio) if key == "longest_edge" else side for key in known
            }
    kind(**options).save_pretrained(folder)

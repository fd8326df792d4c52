"""Every vision model that transformers lists for one image, cut down by rule and saved as a user's.

The lists are its own AutoModel mappings, the configurations its own defaults.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.sweep import AS_IT_COMES, Model
from vitedge.core.errors import InputError
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
ELSEWHERE = ("timm_wrapper",)
"""Model types whose models are another library's, and in its sweep."""
SIDE = 128
"""Pixels of a tiny model's input, or the next multiple of its patches."""
DEPTH = 2
QUERIES = 20
_LAYERS = re.compile(
    r"(num_hidden_layers|(.*_)?num_layers|encoder_layers|decoder_layers|decoder_num_hidden_layers)"
)
_STAGES = ("depths", "stage_num_blocks", "blocks_per_stage", "layer_depths")
_SIZES = ("image_size", "img_size", "pretrain_image_size")
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
_AT_LAYERS = ("window_block_indices", "window_block_indexes", "global_attn_indexes")
_WIDE = 512
_NARROWER = 4

LARGEST = 300_000_000
"""Parameters of what is made here; language models that read images are larger."""
EXCEPTIONS: dict[str, dict[str, Any]] = {
    # it asks for four feature maps, where its configuration has one
    "BeitForSemanticSegmentation": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    # their defaults go with others' depth or width
    "efficientnet": {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280},
    "eomt": {"num_blocks": 1},
    "eomt_dinov3": {"num_blocks": 1},
    "lw_detr": {
        **{"projector_scale_factors": [1.0], "projector_in_channels": [256]},
        "num_feature_levels": 1,
    },
    # their heads have no defaults
    "sapiens2": {"head_config": {"upsample_out_channels": [64, 64], "conv_out_channels": [64, 64]}},
    "depth_pro": {"patch_size": 96, "image_size": 384, "intermediate_hook_ids": [1, 0]},
    "perceiver": {"num_latents": 32, "num_self_attends_per_block": 2},
}


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
            config, side_px = _config(model.group, kind, narrow, side)
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
    config, side_px = _config(model.group, kind, True, SIDE)
    try:
        _parameters(kind, config)
        kind(config).save_pretrained(folder)
    except ValueError:
        config.save_pretrained(folder)
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
    """How many it has. Raises ValueError for a model that is too large to be made here."""
    import torch

    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in kind(config).parameters())
    if count > LARGEST:
        raise ValueError(f"{count} parameters")
    return count


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


def _config(model_type: str, kind: Any, narrow: bool, side: int | None) -> tuple[Any, int]:
    """A small configuration of `kind`, and the pixels of its input's sides."""
    from transformers import CONFIG_MAPPING

    declared = CONFIG_MAPPING[model_type]
    own = kind.config_class or declared
    values = _values(own if not issubclass(declared, own) else declared)
    windows = next(_all(values, "num_windows"), 1)
    patches = [int(p) * windows for p in _all(values, "patch_size") if isinstance(p, int)]
    if side is not None:
        multiple = math.lcm(*patches) if patches else 1
        multiple = multiple if multiple <= side else max(patches)
        side = multiple * max(1, round(side / multiple))
    _cut(values, narrow, side)
    values.update(EXCEPTIONS.get(kind.__name__, {}))
    config_class = own if not issubclass(declared, own) else declared
    config = config_class.from_dict(values)
    config.architectures = [kind.__name__]
    sides = [s for name in _SIZES for s in _all(values, name)]
    first = sides[0] if sides else side or 224
    return config, int(first if isinstance(first, int) else first[0])


def _values(config_class: Any) -> dict[str, Any]:
    """The defaults of a configuration; a backbone of timm's becomes transformers' own."""
    from transformers import CONFIG_MAPPING

    values = config_class().to_dict()
    specs = getattr(config_class, "sub_configs_defaults", {})
    for name, part in values.items():
        if isinstance(part, dict) and part.get("model_type") == "timm_backbone":
            spec = specs.get(name)
            kind = getattr(spec, "model_type", None) or "resnet"
            options = dict(getattr(spec, "init_kwargs", None) or {"out_features": ["stage4"]})
            if kind == "resnet" and (stages := part.get("out_indices")):  # as timm's would give
                options = {"out_features": [f"stage{stage}" for stage in stages]}
            values[name] = CONFIG_MAPPING[kind](**options).to_dict()
    return values


def _all(values: dict[str, Any], name: str) -> Iterator[Any]:
    if values.get(name) is not None:
        yield values[name]
    for part in values.values():
        if isinstance(part, dict):
            yield from _all(part, name)


def _cut(values: dict[str, Any], narrow: bool, side: int | None) -> None:
    """Fewer layers, queries, channels and pixels, in place and in what is nested."""
    for part in values.values():
        if isinstance(part, dict) and "model_type" in part:
            _cut(part, narrow, side)
    values.pop("stage_names", None)
    depth = DEPTH
    indices = values.get("out_indices") or values.get("backbone_out_indices")
    staged = any(isinstance(values.get(name), (list, tuple)) for name in _STAGES)
    if isinstance(values.get("num_hidden_layers"), int) and indices and not staged:
        depth = max(depth, len(indices))
        last = range(depth - len(indices) + 1, depth + 1)
        if values.get("out_indices"):
            values["out_indices"] = list(last)
            values.pop("out_features", None)
        else:
            values["backbone_out_indices"] = [index - 1 for index in last]
    elif values.get("out_features"):
        values.pop("out_indices", None)
    for name, value in list(values.items()):
        if _LAYERS.fullmatch(name) and isinstance(value, int):
            values[name] = min(value, depth if name == "num_hidden_layers" else DEPTH)
        elif name in _STAGES and isinstance(value, (list, tuple)):
            values[name] = [min(int(part), DEPTH) for part in value]
        elif name in _AT_LAYERS and value:
            values[name] = [index for index in value if index < depth] or [depth - 1]
        elif name == "num_queries" and isinstance(value, int):
            values[name] = min(value, QUERIES)
        elif name == "layer_types" and value and isinstance(value, (list, tuple)):
            values[name] = list(value)[:depth]
        elif name in _SIZES and value is not None and side is not None:
            values[name] = side if isinstance(value, int) else [side, side]
    width = values.get("hidden_size")
    if narrow and isinstance(width, int) and width >= _WIDE:
        named = {n: values[n] for n in _WIDTHS if isinstance(values.get(n), int)}
        if all(value % _NARROWER == 0 for value in named.values()):
            values.update({name: value // _NARROWER for name, value in named.items()})
    values.update(EXCEPTIONS.get(str(values.get("model_type")), {}))


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

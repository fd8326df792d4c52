"""Small configurations of transformers' models: its defaults, cut by rule, and what those lack."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

SIDE = 128
"""Pixels of a tiny model's input, or the next multiple of its patches; less where it has less."""
DEPTH = 2
QUERIES = 20
_LAYERS = re.compile(
    r"(num_hidden_layers|(.*_)?num_layers|encoder_layers|decoder_layers|decoder_num_hidden_layers)"
)
_STAGES = ("depths", "stage_num_blocks", "blocks_per_stage", "layer_depths")
_STAGED = "num_layers"
"""What Swin calls the count of its stages, of which none is left out."""
_SIZES = ("image_size", "img_size", "pretrain_image_size")
_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
_AT_LAYERS = ("window_block_indices", "window_block_indexes", "global_attn_indexes")
_WIDE = 512
_NARROWER = 4
_KERNELS = {"long": 7, "mid": 5, "short": 3}
_INTRACLASS: dict[str, Any] = {
    "intraclass_block_config": {
        "reduce_channel": [1, 1, 0],
        "return_channel": [1, 1, 0],
        **{
            f"{name}_{span}ratio": [list(sides), 1, [side // 2 for side in sides]]
            for span, size in _KERNELS.items()
            for name, sides in {
                "vertical_long_to_small_conv": (size, 1),
                "horizontal_small_to_long_conv": (1, size),
                "symmetric_conv_long": (size, size),
            }.items()
        },
    },
    "scale_factor_list": [1, 2, 4, 8],
    "kernel_list": [3, 2, 2],
}
"""Of PaddleOCR's neck for text, which has no defaults in transformers."""
_HALVING: dict[str, Any] = {
    "backbone_config": {
        "model_type": "pp_lcnet_v4",
        "block_configs": [
            [[3, 96, 96, 1, True]],
            [[3, 96, 96, 2, False]],
            [[3, 96, 192, 2, False]],
            [[3, 192, 384, 2, False]],
        ],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
}
"""A backbone whose maps halve, as detectors want: the default one is for lines of text."""
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
    # of its four channels the last is the alpha
    "Sapiens2ForImageMatting": {"id2label": {str(i): f"LABEL_{i}" for i in range(4)}},
    "pp_ocrv5_server_det": _INTRACLASS,
    "pp_ocrv6_medium_det": _INTRACLASS | _HALVING,
    "pp_ocrv6_small_det": {"layer_list_out_channels": [96, 96, 192, 384], **_HALVING},
    "pp_doclayout_v2": {"class_thresholds": [0.5, 0.5], "class_order": [0, 1]},
    "depth_pro": {
        **{"patch_size": 96, "image_size": 384, "intermediate_hook_ids": [1, 0]},
        **{"fusion_hidden_size": 64, "intermediate_feature_dims": [64, 64]},
        "scaled_images_feature_dims": [256, 256, 128],
    },
    # at 0.02, of what an image is, 1e-6 is left where the head's softplus begins
    "zoedepth": {"initializer_range": 0.04},
    "perceiver": {"num_latents": 32, "num_self_attends_per_block": 2},
}
"""Values by class, or by model type wherever that stands in a configuration."""


def config_of(model_type: str, kind: Any, narrow: bool, side: int | None) -> tuple[Any, int]:
    """A small configuration of `kind`, and the pixels of its input's sides."""
    from transformers import CONFIG_MAPPING

    declared = CONFIG_MAPPING[model_type]
    own = kind.config_class or declared
    values = _values(own if not issubclass(declared, own) else declared)
    windows = next(_all(values, "num_windows"), 1)
    patches = [int(p) * windows for p in _all(values, "patch_size") if isinstance(p, int)]
    if side is not None:
        side = min(
            [side, *(s for name in _SIZES for s in _all(values, name) if isinstance(s, int))]
        )
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
        if _LAYERS.fullmatch(name) and isinstance(value, int) and not (staged and name == _STAGED):
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

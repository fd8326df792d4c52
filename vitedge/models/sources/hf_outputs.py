"""What models of transformers give, by the library's own names: which of it is the main output of
a head, which is kept beside that, and which is of their inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from vitedge.core.errors import InputError
from vitedge.core.spec import Task
from vitedge.models.sources.outputs import named

MAPS = (
    *("predicted_depth", "normals", "pointmaps", "alphas", "heatmaps", "reconstruction"),
    "fpn_hidden_states",
)
"""Fields of values for each pixel. Of several levels the last, deepest one is the main output."""
BOXES = "pred_boxes"
"""Of detectors, beside their `logits`: queries' boxes by centre and size."""
HEADS = ("class_queries_logits", "logits")
"""Of an image, or of queries, characters and whatever else is no pixel."""
ENCODERS = (
    *("image_embeds", "summary", "pooler_output", "cls_token_value"),
    *("class_token", "last_hidden_state", "encoder_last_hidden_state"),
)
"""What an encoder says of an image, the best first: the others say the same again. `class_token` is
ours: the first token of `last_hidden_state`, where there is one."""
INSIDE = re.compile(
    "loss|auxiliary_|intermediate_|init(ial)?_reference_points|reference_points|enc_|encoder_|"
    "decoder_|pixel_decoder_|transformer_decoder_|hidden_states|reshaped_hidden_states|"
    "last_hidden_state|(cross_)?attentions|cls_logits|distillation_logits|fpn_position_encoding|"
    "backbone_features|mask$|patch_offsets|denoising_"
)
"""Fields that a head's own output is made of, or that only training reads."""
_OF_RANK: dict[int, Task] = {2: "classification", 4: "dense"}


class Usual(NamedTuple):
    """What is kept of a model unless a user names it."""

    names: tuple[str, ...]
    """The main one first."""
    task: Task


def by_name(output: Any, module: Any) -> dict[str, Tensor]:
    """All tensors that `module` gave, by field; a backbone's feature maps by their stages."""
    tensors = named(output)
    stages = _stages(module)
    maps = [name for name in tensors if name.startswith("feature_maps_")]
    if len(stages) == len(maps):
        new = dict(zip(maps, stages, strict=True))
        tensors = {new.get(name, name): tensor for name, tensor in tensors.items()}
    for name in ("pooler_output", "cls_token_value"):  # (B, D, 1, 1), (B, 1, D)
        if name in tensors:
            tensors[name] = tensors[name].flatten(1)
    return tensors


def usual(
    tensors: Mapping[str, Tensor], module: Any, head: Task | None, requested: Task | None
) -> Usual:
    """What is kept of `tensors`, all that `module` gives for one image.

    `head`: what its class says that it does, if it does. Of what is `requested`, the first that can
    be that is the main one. Raises InputError where nothing can be kept.
    """
    whole = {name: tensor for name, tensor in tensors.items() if _of_images(tensor)}
    own = [name for name in whole if not INSIDE.match(name)]
    maps = [name for name in own if name.startswith(MAPS) or name in _stages(module)]
    heads = [name for field in HEADS for name in own if name.startswith(field)]
    encoders = [name for name in ENCODERS if name in whole]
    kind = type(module).__name__
    if requested in (None, "detection") and {"logits", BOXES} <= {*own}:
        further = (name for name in own if name not in ("logits", BOXES, *ENCODERS))
        return Usual(("logits", BOXES, *further), "detection")
    if requested == "detection":
        raise InputError(
            f"{kind} gives {', '.join(own) or 'no tensor'}, not `logits` and `{BOXES}`",
            fix="drop `task`: it is no detector as transformers has them",
        )
    order = [*maps[-1:], *heads, *encoders, *own]
    if requested == "dense":
        order = [name for name in order if whole[name].ndim == 4] or order
    main = next((name for name in order if whole[name].ndim >= 2), None)
    if "keypoints" in tensors:
        raise InputError(
            f"{kind} gives as many keypoints as an image has, and an artifact's outputs have a "
            "fixed size",
            fix="give a model whose outputs have the same size for every image",
        )
    if main is None:
        raise InputError(
            f"{kind} gives {', '.join(tensors) or 'no tensor'}, and nothing of that is float32 "
            "with a row for each image",
            fix="give a model with a head that transformers documents, or its encoder",
        )
    if main in encoders:
        headless = not head and "For" not in kind
        return Usual((main,), "features" if headless else _task(whole[main], head))
    beside = (name for name in own if name != main and name not in ENCODERS)
    dense = (main in maps and whole[main].ndim != 3) or main.startswith(MAPS)
    return Usual((main, *beside), "dense" if dense else head or "features")


def _stages(module: Any) -> tuple[str, ...]:
    """Names of the feature maps that a backbone gives; empty of any other."""
    return tuple(getattr(module, "out_features", None) or ())


def _of_images(tensor: Tensor) -> bool:
    """Whether it can be compared: float, with a row for the one image."""
    return tensor.is_floating_point() and tensor.ndim > 0 and tensor.shape[0] == 1


def _task(tensor: Tensor, head: Task | None) -> Task:
    """Of a head that gives what it makes of an image as `last_hidden_state`."""
    task = _OF_RANK.get(tensor.ndim, "features")
    return task if task in (head, "dense") else "features"

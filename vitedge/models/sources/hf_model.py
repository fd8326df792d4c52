"""hf:ID-or-directory, by transformers' own classes; code beside a checkpoint never runs."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line
from vitedge.core.spec import Preprocess
from vitedge.graph.outputs import choose
from vitedge.models.sources import checkpoints, hf_weights, random_weights
from vitedge.models.sources.base import (
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    any_file,
    bundle_name,
    not_here,
    stay_offline_if_unreachable,
)
from vitedge.models.sources.imports import import_transformers, unimportable
from vitedge.models.sources.labels import check_counts, class_names
from vitedge.models.sources.outputs import ChosenOutputs, named, specs
from vitedge.models.sources.preprocessing_hf import from_hf
from vitedge.models.sources.settings import PROCESSOR

_WEIGHTS = tuple(
    f"{name}{index}"
    for name in ("model.safetensors", "pytorch_model.bin")
    for index in ("", ".index.json")
)


MAIN = ("logits", "pooler_output", "class_token", "last_hidden_state")
"""What is kept unless a user names others: the first there is; of a detector, its boxes, too."""


class ImageModel(ChosenOutputs):
    """A transformers model of images (B, 3, H, W) float32.

    Its pooled output is (B, D); an encoder with a class token gives that as `class_token`, too.
    """

    def __init__(self, module: Any, preprocess: Preprocess) -> None:
        super().__init__(module)
        self.class_token = any(name.endswith("cls_token") for name in module.state_dict())
        size = _image_size(module.config)
        other = size is not None and size != (preprocess.height, preprocess.width)
        takes = inspect.signature(module.forward).parameters
        name = "interpolate_pos_encoding"  # models without this option always do, or never
        self.options = {name: True} if other and name in takes else {}

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """All that it gives, by name."""
        outputs = named(self.module(pixel_values=x, **self.options))
        if "pooler_output" in outputs:
            outputs["pooler_output"] = outputs["pooler_output"].flatten(1)
        if self.class_token and "last_hidden_state" in outputs:
            outputs["class_token"] = outputs["last_hidden_state"][:, 0]
        return outputs

    def usual(self, outputs: Collection[str]) -> list[str]:
        """Which of `outputs` are kept unless a user names others. Raises InputError."""
        main = next((name for name in MAIN if name in outputs), None)
        if main is None:
            raise InputError(
                f"{type(self.module).__name__} gives {', '.join(outputs)}, and no logits or "
                "features",
                fix=f"{hf_weights.TAKEN}; or name an output with `model_output`",
            )
        return [main, *(["pred_boxes"] if "pred_boxes" in outputs else [])]


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Load a directory of transformers, or an ID from its hub.

    Raises InputError, and UnavailableError for what cannot be fetched or imported.
    """
    stay_offline_if_unreachable()
    try:
        note = import_transformers()
    except (ImportError, RuntimeError) as error:
        raise unimportable("transformers", "hf", error) from error
    try:
        return _load(name, request, (note,) if note else ())
    except ImportError as error:  # transformers imports what a class needs when it is asked for
        raise unimportable("transformers", "hf", error) from error


def _load(name: str, request: ModelRequest, notes: tuple[str, ...]) -> ReferenceModel:
    source = f"hf:{name}"
    config = _config(name, source)
    kind, task = hf_weights.architecture(config, request.task, source)
    torch.manual_seed(0)
    module = hf_weights.load(kind, config, name, request)
    missing: dict[Literal["weights", "preprocess"], VitedgeError] = {}
    if request.shapes_only and not (request.weights or any_file(name, _WEIGHTS)):
        missing["weights"] = not_here(source)
    try:
        preprocess = request.own_preprocess() or _preprocess(name, module.config)
    except InputError as error:
        if not request.shapes_only:
            raise
        missing["preprocess"] = error
        height, width = _image_size(module.config) or (224, 224)
        preprocess = Preprocess(height=height, width=width)
    model = ImageModel(module, preprocess)
    if request.random_weights:
        random_weights.spread(model, preprocess)
    state = module.state_dict()
    checkpoints.require_finite(state, source)
    tensors = _answer(model, preprocess, source)
    requested = request.model_output or model.usual(tensors)
    outputs = choose(specs(tensors), requested, task, source)
    model.names = outputs.names
    names, where = request.labels or config.id2label, f"{source}: config.json"
    identity = ModelIdentity(
        name=bundle_name(name.rstrip("/").rpartition("/")[2]),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=task,
        labels=class_names(names, outputs.classes, where) if outputs.classes else (),
        trained=not request.random_weights,
        notes=(*notes, *outputs.notes),
    )
    return ReferenceModel(identity, model, outputs.names, missing)


def _config(name: str, source: str) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    try:
        stated, _ = PretrainedConfig.get_config_dict(name)
        check_counts(stated, f"{source}: config.json")
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (ImportError, InputError):
        raise
    except Exception as error:  # OS, value, key and hub errors alike
        if Path(name).is_dir():
            raise InputError(
                f"{source}: its config.json cannot be used: {error_line(error)}",
                fix="give a directory that save_pretrained() wrote, of a model transformers has",
            ) from error
        raise UnavailableError(
            f"'{source}' is not here and cannot be downloaded: {error_line(error)}",
            fix="connect, or give a directory with its config.json and weights "
            "(the config alone with `weights=FILE` or `random_weights=True`)",
        ) from error


def _preprocess(name: str, config: Any) -> Preprocess:
    from transformers.image_processing_base import ImageProcessingMixin

    advice = "or pass `preprocess=FILE.toml` (see 'Preprocessing' in the README)"
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}, not an object")
    except (OSError, ValueError, TypeError) as error:
        if (Path(name) / PROCESSOR).is_file() or "valid JSON" in str(error):
            raise InputError(
                f"hf:{name}: its {PROCESSOR} cannot be read: {error_line(error)}",
                fix=f"save its image processor again, {advice}",
            ) from error
        raise InputError(
            f"hf:{name} has no {PROCESSOR}", fix=f"save its image processor there, {advice}"
        ) from error
    return from_hf(settings, config.model_type, _image_size(config) or (224, 224))


def _image_size(config: Any) -> tuple[int, int] | None:
    """Height and width that a config states, pixels."""
    match getattr(config, "image_size", None):
        case int(side):
            return side, side
        case [int(height), int(width)]:
            return height, width
    return None


def _answer(model: ImageModel, preprocess: Preprocess, source: str) -> dict[str, Tensor]:
    """All that `model` gives for a black image.

    Raises InputError where it takes more than images.
    """
    pixels = torch.zeros(1, 3, preprocess.height, preprocess.width)
    try:
        with torch.no_grad():  # in inference mode, what a module caches could not be exported
            outputs = model.outputs(pixels)
    except (ImportError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{source}: {type(model.module).__name__} does not run on an image of "
            f"{preprocess.height}×{preprocess.width} alone: {error_line(error)}",
            fix=f"{hf_weights.TAKEN}; another size may do, with `preprocess=FILE.toml`",
        ) from error
    return outputs

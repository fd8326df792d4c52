"""hf:ID-or-directory, by transformers' own classes; code beside a checkpoint never runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line
from vitedge.core.spec import Preprocess, Task
from vitedge.graph.outputs import choose
from vitedge.models.preprocessing import FIX
from vitedge.models.sources import (
    checkpoints,
    hf_outputs,
    hf_towers,
    hf_weights,
    model_folder,
    random_weights,
    sizes,
)
from vitedge.models.sources.base import (
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    any_file,
    bundle_name,
    not_here,
    stay_offline_if_unreachable,
)
from vitedge.models.sources.detectors import rule_of
from vitedge.models.sources.imports import import_transformers, unimportable
from vitedge.models.sources.labels import check_counts, class_names
from vitedge.models.sources.outputs import ChosenOutputs, specs
from vitedge.models.sources.preprocessing_hf import from_hf
from vitedge.models.sources.settings import PROCESSOR

_WEIGHTS = tuple(
    f"{name}{index}"
    for name in ("model.safetensors", "pytorch_model.bin")
    for index in ("", ".index.json")
)


class ImageModel(ChosenOutputs):
    """A transformers model of images (B, 3, H, W) float32.

    Its pooled output is (B, D); an encoder with a class token gives that as `class_token`, too.
    """

    def __init__(self, module: Any, preprocess: Preprocess) -> None:
        super().__init__(module)
        self.class_token = any(name.endswith("cls_token") for name in module.state_dict())
        size = _image_size(module.config)
        other = size is not None and size != (preprocess.height, preprocess.width)
        takes = inspect.signature(getattr(module, "of_images", module.forward)).parameters
        name = "interpolate_pos_encoding"  # models without this option always do, or never
        self.options = {name: True} if other and name in takes else {}

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """All that it gives, by name."""
        outputs = hf_outputs.by_name(self.module(pixel_values=x, **self.options), self.module)
        tokens = outputs.get("last_hidden_state")
        if self.class_token and tokens is not None and tokens.ndim == 3:
            outputs["class_token"] = tokens[:, 0]
        return outputs


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Load a directory of transformers, or an ID from its hub.

    Raises InputError, and UnavailableError for what cannot be fetched or imported.
    """
    stay_offline_if_unreachable()
    model_folder.check(name)
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
    kind, head = hf_weights.architecture(config, request, source)
    torch.manual_seed(0)
    module, part = hf_weights.load(kind, config, name, request)
    if hf_towers.has_towers(kind):
        module = hf_towers.tower(module, name, request)
        if request.classes:
            notes += (hf_towers.note(kind, request),)
    missing: dict[Literal["weights", "preprocess"], VitedgeError] = {}
    assumed = list(notes)
    if request.shapes_only and not (request.weights or any_file(name, _WEIGHTS)):
        missing["weights"] = not_here(source)
    try:
        preprocess = request.own_preprocess() or _preprocess(name, module.config, assumed)
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
    usual = hf_outputs.usual(tensors, module, None if part else head, request.task)
    task, requested = request.task or usual.task, request.model_output
    if task == "detection" and not request.task and requested and requested[:2] != usual.names[:2]:
        task = "features"  # who keeps the logits alone has no detections
    outputs = choose(specs(tensors), requested or usual.names, task, source)
    model.names = outputs.names
    rule = rule_of(config.model_type, source) if outputs.task == "detection" else None
    classes = outputs.classes - (rule.no_object if rule else 0)
    identity = ModelIdentity(
        name=bundle_name(name.rstrip("/").rpartition("/")[2]),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=outputs.task,
        labels=class_names(
            request.classes or request.labels,
            config.id2label,
            classes,
            f"{source}: config.json",
        )
        if outputs.classes
        else (),
        trained=not request.random_weights,
        notes=(*assumed, *_left_out(kind, part, request.task, module), *outputs.notes),
        detection=rule,
    )
    return ReferenceModel(identity, model, outputs.names, missing)


def _left_out(kind: Any, part: str, requested: Task | None, module: Any) -> Iterator[str]:
    """What is left out of a model, of which nobody has said that it should be."""
    if part and requested is None:
        yield (
            f"{kind.__name__} guesses hidden patches: its encoder `{part}` is taken without that "
            "and without its `logits` and `loss`"
        )
    if hasattr(getattr(module, "embeddings", None), "random_masking"):
        yield "no patch is hidden, so that there is no `mask` and no `ids_restore`"


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


def _preprocess(name: str, config: Any, notes: list[str]) -> Preprocess:
    from transformers.image_processing_base import ImageProcessingMixin

    if config.model_type == "timm_wrapper":  # its config.json is timm's, too
        return from_hf(config.to_dict(), config.model_type, None)
    advice = f"or {FIX}"
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}, not an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if (Path(name) / PROCESSOR).is_file() or "valid JSON" in str(error):
            raise InputError(
                f"hf:{name}: its {PROCESSOR} cannot be read: {error_line(error)}",
                fix=f"save its image processor again, {advice}",
            ) from error
        raise InputError(
            f"hf:{name} has no {PROCESSOR}", fix=f"save its image processor there, {advice}"
        ) from error
    return from_hf(settings, config.model_type, _image_size(config), notes)


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
    size = preprocess.height, preprocess.width
    try:
        return _of_black(model, size)
    except (ImportError, InputError):
        raise
    except Exception as error:
        kind, config = type(model.module), model.module.config

        def trial(size: sizes.Size) -> object:
            other = Preprocess(height=size[0], width=size[1])
            return _of_black(ImageModel(kind._from_config(config).eval(), other), size)

        others = sizes.taken(trial, size, _image_size(config))
        raise InputError(
            f"{source}: {type(model.module).__name__} does not run on an image of "
            f"{size[0]}×{size[1]} alone: {error_line(error)}",
            fix=sizes.fix(others) if others else hf_weights.TAKEN,
        ) from error


def _of_black(model: ImageModel, size: sizes.Size) -> dict[str, Tensor]:
    """All that `model` gives for a black image of that height and width."""
    with torch.no_grad():  # in inference mode, what a module caches could not be exported
        return model.outputs(sizes.black(size))

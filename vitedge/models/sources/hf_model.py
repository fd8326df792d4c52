"""hf:ID-or-directory, by transformers' own classes; code beside a checkpoint never runs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line
from vitedge.core.errors import missing as not_installed
from vitedge.core.spec import Preprocess
from vitedge.models.sources import checkpoints, hf_weights
from vitedge.models.sources.base import (
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    any_file,
    bundle_name,
    check_labels,
    not_here,
    stay_offline_if_unreachable,
)
from vitedge.models.sources.preprocessing_hf import from_hf

_PROCESSOR = "preprocessor_config.json"
_WEIGHTS = tuple(
    f"{name}{index}"
    for name in ("model.safetensors", "pytorch_model.bin")
    for index in ("", ".index.json")
)


class OneOutput(nn.Module):
    """A transformers model as (B, 3, H, W) float32 -> one tensor.

    Logits where it has a head; of a detector, class logits and boxes (B, queries, classes + 1 + 4);
    of an encoder its pooled output (B, D), the class token, or the last feature map.
    """

    def __init__(self, module: Any, preprocess: Preprocess) -> None:
        super().__init__()
        self.module = module
        self.class_token = any(name.endswith("cls_token") for name in module.state_dict())
        size = _image_size(module.config)
        other = size is not None and size != (preprocess.height, preprocess.width)
        takes = inspect.signature(module.forward).parameters
        name = "interpolate_pos_encoding"  # models without this option always do, or never
        self.options = {name: True} if other and name in takes else {}

    def forward(self, x: Tensor) -> Tensor:
        output = self.module(pixel_values=x, **self.options)
        if "pred_boxes" in output:
            return torch.cat([output["logits"], output["pred_boxes"]], dim=-1)
        if output.get("logits") is not None:
            return output["logits"]
        if output.get("pooler_output") is not None:
            return output["pooler_output"].flatten(1)
        if output.get("last_hidden_state") is not None:
            hidden = output["last_hidden_state"]
            return hidden[:, 0] if self.class_token else hidden
        raise InputError(
            f"{type(self.module).__name__} gives {', '.join(output)}, and no logits or features",
            fix=hf_weights.TAKEN,
        )


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Load a directory of transformers, or an ID from its hub.

    Raises InputError, and UnavailableError for what cannot be fetched or imported.
    """
    stay_offline_if_unreachable()
    try:
        import transformers
        from transformers import image_processing_base, modeling_utils  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise _unimportable(error) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return _load(name, request)
    except ImportError as error:  # transformers imports what a class needs when it is asked for
        raise _unimportable(error) from error


def _unimportable(error: Exception) -> UnavailableError:
    """The error of a transformers that is not here, or lacks something that it needs."""
    if isinstance(error, ModuleNotFoundError) and error.name == "transformers":
        return not_installed("transformers", "hf")
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    return UnavailableError(
        f"transformers cannot import what it needs: {error_line(root)}",
        fix="install that; torch and torchvision must be builds of one kind",
    )


def _load(name: str, request: ModelRequest) -> ReferenceModel:
    source = f"hf:{name}"
    config = _config(name, source)
    kind, task = hf_weights.architecture(config, request.task, source)
    torch.manual_seed(0)
    module = hf_weights.load(kind, config, name, request)
    state = module.state_dict()
    checkpoints.require_finite(state, source)
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
    model = OneOutput(module, preprocess)
    output = _answer(model, preprocess, source)
    identity = ModelIdentity(
        name=bundle_name(name.rstrip("/").rpartition("/")[2]),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=task,
        labels=() if task == "features" else _labels(config, output.shape[1], source),
        trained=not request.random_weights,
    )
    return ReferenceModel(identity, model, missing)


def _config(name: str, source: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except ImportError:
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
        if (Path(name) / _PROCESSOR).is_file() or "valid JSON" in str(error):
            raise InputError(
                f"hf:{name}: its {_PROCESSOR} cannot be read: {error_line(error)}",
                fix=f"save its image processor again, {advice}",
            ) from error
        raise InputError(
            f"hf:{name} has no {_PROCESSOR}", fix=f"save its image processor there, {advice}"
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


def _answer(model: OneOutput, preprocess: Preprocess, source: str) -> Tensor:
    """What `model` gives for a black image. Raises InputError where it takes more than images."""
    pixels = torch.zeros(1, 3, preprocess.height, preprocess.width)
    try:
        with torch.no_grad():  # in inference mode, what a module caches could not be exported
            output: Tensor = model(pixels)
    except (ImportError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{source}: {type(model.module).__name__} does not run on an image of "
            f"{preprocess.height}×{preprocess.width} alone: {error_line(error)}",
            fix=f"{hf_weights.TAKEN}; another size may do, with `preprocess=FILE.toml`",
        ) from error
    return output


def _labels(config: Any, classes: int, source: str) -> tuple[str, ...]:
    """The names in config.json; numbers where it has only LABEL_0 and the like."""
    names = [str(config.id2label[index]) for index in sorted(config.id2label)]
    generic = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return check_labels(() if generic else names, classes, source)

"""hf:ID-or-directory, by transformers' own classes; code beside a checkpoint never runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitedge.errors import InputError, UnavailableError, error_line
from vitedge.models import checkpoints
from vitedge.models.preprocessing_hf import from_hf
from vitedge.models.sources import hub
from vitedge.models.sources.base import (
    Identity,
    ReferenceModel,
    Request,
    bundle_name,
    check_labels,
    unavailable,
    unimportable,
)
from vitedge.spec import Preprocess, Task

_UNUSED = ("pooler", "mask_token", "position_ids")
"""Tensors that checkpoints carry and a model without that part rightly leaves."""


class OneOutput(nn.Module):
    """A transformers model as (B, 3, H, W) float32 -> one tensor.

    Logits where it has a head; of a detector, class logits and boxes (B, queries, classes + 1 + 4);
    of an encoder its pooled output, the class token, or the last feature map.
    """

    def __init__(self, module: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.options = options
        self.class_token = any(name.endswith("cls_token") for name in module.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        output = self.module(pixel_values=x, **self.options)
        if "pred_boxes" in output:
            return torch.cat([output["logits"], output["pred_boxes"]], dim=-1)
        for name in ("logits", "pooler_output"):
            if output.get(name) is not None:
                return output[name]
        if output.get("last_hidden_state") is not None:
            hidden = output["last_hidden_state"]
            return hidden[:, 0] if self.class_token else hidden
        raise InputError(
            f"{type(self.module).__name__} has no logits and no hidden state",
            fix="export it to ONNX with the output you need, and pass FILE.onnx",
        )


def load(name: str, request: Request) -> ReferenceModel:
    """Load a directory of transformers, or an ID from its hub. Raises InputError."""
    hub.stay_offline_if_unreachable()
    try:
        import transformers
    except (ImportError, RuntimeError) as error:
        raise unimportable("transformers", "hf", error) from error

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source = f"hf:{name}"
    config = _config(name, source)
    kind, task = _class(config, request.task, source)
    torch.manual_seed(0)
    module = _module(kind, config, name, source, request).eval()
    state = module.state_dict()
    checkpoints.require_finite(state, source)
    preprocess = request.own_preprocess() or _preprocess(name, config)
    identity = Identity(
        name=bundle_name(name.rstrip("/").rpartition("/")[2]),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task=task,
        labels=() if task == "features" else _labels(config, module, source),
        trained=not request.random_weights,
    )
    return ReferenceModel(identity, OneOutput(module, _options(module, config, preprocess)))


def _config(name: str, source: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # OS, value, key and hub errors alike
        if Path(name).is_dir():
            raise InputError(
                f"{source}: its config.json cannot be used: {error_line(error)}",
                fix="give a directory that save_pretrained() wrote, of a model transformers has",
            ) from error
        raise UnavailableError(
            f"'{source}' is not here and cannot be downloaded: {error_line(error)}",
            fix="connect, or give a directory with its config.json and weights "
            "(the config alone with --weights FILE or --random-weights)",
        ) from error


def _class(config: Any, wanted: Task | None, source: str) -> tuple[Any, Task]:
    """The class that config.json names, or its encoder where features are wanted."""
    import transformers

    names = getattr(config, "architectures", None) or []
    kind = getattr(transformers, names[0], None) if names else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(
            f"{source}: config.json names no architecture of transformers ({names})",
            fix="save the model with save_pretrained()",
        )
    task: Task = "features"
    if "ForImageClassification" in kind.__name__:
        task = "classification"
    elif kind.__name__.endswith("ForSemanticSegmentation"):
        task = "segmentation"
    if wanted == "features" and task != "features":
        return transformers.AutoModel, "features"
    if wanted not in (None, task):
        raise InputError(f"{source}: {kind.__name__} does {task}, not {wanted}", fix="drop --task")
    return kind, task


def _module(kind: Any, config: Any, name: str, source: str, request: Request) -> nn.Module:
    """The model with its own weights, those of --weights, or random ones."""
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False  # the checkpoint holds the backbone's weights
    options: dict[str, Any] = {"attn_implementation": "eager"}  # its parts get quantized
    make = getattr(kind, "from_config", None) or kind._from_config
    if request.task == "features" and _has_pooler_weights(make, config):
        options["add_pooling_layer"] = False
    if request.random_weights or request.weights:
        module: nn.Module = make(config, **options)
        if request.weights:
            hub.load_weights(module, request.weights)
        return module
    try:
        module, found = kind.from_pretrained(
            name,
            config=config,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with the rest
            **options,
        )
    except OSError as error:
        raise unavailable(source, error_line(error)) from error
    except Exception as error:  # safetensors, pickle and shape errors alike
        raise InputError(
            f"{source}: its weights cannot be loaded: {error_line(error)}",
            fix="download or save them again; pickles with code are never run",
        ) from error
    headless = request.task == "features"
    checkpoints.refuse_misfit(
        {
            "missing": sorted(found["missing_keys"]),
            "unexpected": sorted(
                key
                for key in found["unexpected_keys"]
                if not headless and not any(part in key for part in _UNUSED)
            ),
            "misshaped": [
                f"{key} {tuple(theirs)}, not {tuple(ours)}"
                for key, theirs, ours in sorted(found["mismatched_keys"])
            ],
        },
        source,
        fix="give the weights that belong to this config.json",
    )
    return module


def _has_pooler_weights(make: Callable[..., nn.Module], config: Any) -> bool:
    """Whether an encoder ends in a layer that no classifier's checkpoint has."""
    with torch.device("meta"):
        return any(name.startswith("pooler.") for name in make(config).state_dict())


def _preprocess(name: str, config: Any) -> Preprocess:
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError as error:
        raise InputError(
            f"hf:{name} has no preprocessor_config.json",
            fix="save its image processor there, or pass --preprocess FILE.toml "
            "(see 'Preprocessing' in the README)",
        ) from error
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    return from_hf(settings, config.model_type, (height, width))


def _options(module: nn.Module, config: Any, preprocess: Preprocess) -> dict[str, Any]:
    """Position embeddings are interpolated only where a model is told to, or always does."""
    size = getattr(config, "image_size", None)
    sizes = (size, size) if isinstance(size, int) else size
    takes = inspect.signature(module.forward).parameters
    other = sizes is not None and tuple(sizes) != (preprocess.height, preprocess.width)
    return {"interpolate_pos_encoding": True} if other and _INTERPOLATE in takes else {}


_INTERPOLATE = "interpolate_pos_encoding"


def _labels(config: Any, module: nn.Module, source: str) -> tuple[str, ...]:
    """The names in config.json; numbers where it has only LABEL_0 and the like."""
    names = [config.id2label[index] for index in sorted(config.id2label)]
    generic = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return check_labels(() if generic else names, _classes(module, len(names)), source)


def _classes(module: nn.Module, stated: int) -> int:
    """Outputs of the classifier, where it can be told."""
    head = getattr(module, "classifier", None)
    return getattr(head, "out_features", stated)

"""The modules of transformers that vitedge takes, with weights that fit them to the last tensor."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Task
from vitedge.models.sources import checkpoints
from vitedge.models.sources.base import ModelRequest, unavailable

TAKEN = "image classification, semantic segmentation and encoders (`task='features'`) are supported"

_PRETRAINING = ("ForPreTraining", "ForMaskedImageModeling")
_UNUSED = ("pooler", "mask_token", "position_ids")
"""Tensors that checkpoints carry and a model without that part rightly leaves."""
_ALL_FITS: dict[str, Any] = {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}


def architecture(config: Any, requested: Task | None, source: str) -> tuple[Any, Task]:
    """The class that config.json names, and what to make of it. Raises InputError."""
    import transformers

    names = getattr(config, "architectures", None) or []
    named = names and isinstance(names[0], str)
    kind: Any = getattr(transformers, names[0], None) if named else None
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known:
        raise InputError(
            f"{source}: config.json names no architecture of transformers ({names})",
            fix="save the model with save_pretrained()",
        )
    if "pixel_values" not in inspect.signature(kind.forward).parameters:
        raise InputError(f"{source}: {kind.__name__} takes no images", fix=TAKEN)
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise InputError(
            f"{source}: {kind.__name__} takes {channels}-channel images, not RGB",
            fix="give a model of RGB images",
        )
    task: Task = "features"
    if "ForImageClassification" in kind.__name__:
        task = "classification"
    elif kind.__name__.endswith("ForSemanticSegmentation"):
        task = "segmentation"
    if requested not in (None, "features", task):
        raise InputError(
            f"{source}: {kind.__name__} does {task}, not {requested}", fix="drop `task`"
        )
    return kind, requested or task


def load(kind: Any, config: Any, name: str, request: ModelRequest) -> Any:
    """Make the model in float32, with its own weights, those of a file, or random ones.

    Of a model with a head that features are wanted of, or that was made to pre-train one, this is
    its encoder: with the pooler that its own class gives it, trained with it. Raises InputError,
    and UnavailableError for weights on a hub that cannot be reached.
    """
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False  # the checkpoint holds the backbone's weights
    model, loading_info = _from_pretrained(kind, config, name, request)
    poolers = [key for key in loading_info["missing_keys"] if key.startswith("pooler.")]
    if poolers and "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        model, loading_info = _from_pretrained(kind, config, name, request, add_pooling_layer=False)
    headless = request.task == "features" or kind.__name__.endswith(_PRETRAINING)
    part = _encoder(model, name) if headless else ""
    _refuse_misfit(loading_info, part, request.weights or f"hf:{name}")
    module: Any = getattr(model, part) if part else model
    if hasattr(getattr(module, "embeddings", None), "random_masking"):
        module.embeddings.random_masking = _every_patch
    return module.float().eval()


def _from_pretrained(
    kind: Any, config: Any, name: str, request: ModelRequest, **options: bool
) -> tuple[Any, dict[str, Any]]:
    """The model with what fits of its weights, and what does not, as transformers lists it."""
    source = f"hf:{name}"
    shared = {"attn_implementation": "eager", "dtype": torch.float32}  # its parts get quantized
    weights: dict[str, Any] = {}
    if request.weights and not request.shapes_only:
        weights["state_dict"] = checkpoints.read_tensors(request.weights)
    try:
        if request.random_weights or request.shapes_only:
            return kind._from_config(config, **shared, **options), _ALL_FITS
        model, loading_info = kind.from_pretrained(
            None if weights else name,
            config=config,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the caller refuses them, with the rest
            **weights,
            **shared,
            **options,
        )
    except ImportError:
        raise
    except OSError as error:
        if not Path(name).is_dir():
            raise unavailable(source, error_line(error)) from error
        raise InputError(
            f"{source}: its weights are not all there: {error_line(error)}",
            fix="add the file, pass `weights=FILE`, or `random_weights=True` to measure latency "
            "only",
        ) from error
    except Exception as error:  # safetensors, pickle, key, attribute, value and type errors alike
        raise InputError(
            f"{source}: no {kind.__name__} can be made of its config.json and weights: "
            f"{type(error).__name__}: {error_line(error)}",
            fix="save both again with save_pretrained(); pickles with code are never run",
        ) from error
    return model, loading_info


def _every_patch(patches: Tensor, noise: Tensor | None = None) -> tuple[Tensor, None, None]:
    """In place of MAE's `random_masking`, for learning: features are of the whole image."""
    return patches, None, None


def _encoder(model: Any, name: str) -> str:
    """The attribute that holds the encoder of a model with a head; empty for an encoder."""
    parts = dict(model.named_children())
    for part in (model.base_model_prefix, "vision_model"):
        if part in parts:
            return str(part)
    kind = type(model).__name__
    if kind.endswith("Model"):
        return ""
    raise InputError(f"hf:{name}: {kind} holds no encoder that stands alone", fix=TAKEN)


def _refuse_misfit(loading_info: dict[str, Any], part: str, source: str | Path) -> None:
    """Raise InputError for tensors that the exported `part` of a model lacks, or lacks room for."""

    def counts(key: str) -> bool:
        return not part or key.startswith(f"{part}.")

    checkpoints.refuse_misfit(
        {
            "missing": sorted(filter(counts, loading_info["missing_keys"])),
            "unexpected": sorted(
                key for key in loading_info["unexpected_keys"] if not any(p in key for p in _UNUSED)
            ),
            "misshaped": [
                f"{key} {tuple(theirs)}, not {tuple(ours)}"
                for key, theirs, ours in sorted(loading_info["mismatched_keys"])
                if counts(key)
            ],
        },
        source,
        fix="give the weights that belong to this config.json",
    )

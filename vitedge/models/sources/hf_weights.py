"""The modules of transformers that vitedge takes, with weights that fit them to the last tensor."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Task
from vitedge.models.sources import checkpoints, misfit
from vitedge.models.sources.base import ModelRequest, unavailable
from vitedge.models.sources.hf_towers import has_towers, of_texts

TAKEN = "models that make something of one RGB image are supported, and encoders"

_MASKED = ("ForPreTraining", "BeitForMaskedImageModeling")
"""Their heads guess patches that are hidden at random, or codes of such."""
_OF_PAIRS = "ForKeypointMatching"
_PROMPT = re.compile("input_|decoder_input_ids|task_inputs|spatial_shapes|pixel_attention_mask")
"""Arguments that are needed, though their default is None."""
_UNUSED = ("pooler", "mask_token", "position_ids")
"""Tensors that checkpoints carry and a model without that part rightly leaves."""
_ALL_FITS: dict[str, Any] = {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}


class Part(NamedTuple):
    """A module, and the attribute of the whole model that holds it; empty: it is the whole."""

    module: Any
    name: str


def architecture(config: Any, request: ModelRequest, source: str) -> tuple[Any, Task | None]:
    """The class that config.json names, and what it is there for, None if its name says nothing.

    Raises InputError where that is not what was requested, and where it takes no `pixel_values`.
    """
    import transformers

    names = getattr(config, "architectures", None) or []
    is_named = isinstance(names, list) and names and isinstance(names[0], str)
    kind: Any = getattr(transformers, names[0], None) if is_named else None
    known = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known:
        raise InputError(
            f"{source}: config.json names no architecture of transformers ({names})",
            fix="save the model with save_pretrained()",
        )
    if "pixel_values" not in inspect.signature(kind.forward).parameters:
        raise _incomplete(kind, f"`{_first_argument(kind)}`", "", source)
    for part in ("backbone_config", "vision_config"):
        config = getattr(config, part, None) or config
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise InputError(
            f"{source}: {kind.__name__} takes {channels}-channel images, not RGB",
            fix="give a model of RGB images",
        )
    if request.classes and not has_towers(kind):
        raise InputError(
            f"{source}: `classes` are texts, and {kind.__name__} has no text tower",
            fix="drop `classes`, or give a CLIP or SigLIP",
        )
    task: Task | None = None
    if "ForImageClassification" in kind.__name__ or request.classes:
        task = "classification"
    elif kind.__name__.endswith("ForSemanticSegmentation"):
        task = "segmentation"
    requested = request.task
    unfit = requested in ("classification", "segmentation") and requested != task
    if unfit or (request.classes and requested not in (None, task)):
        fix = "drop `task`"
        if has_towers(kind) and not request.classes:
            fix = "drop `task`, or pass `classes`"
        raise InputError(
            f"{source}: {kind.__name__} does {task or 'something else'}, not {requested}", fix=fix
        )
    return kind, task


def load(kind: Any, config: Any, name: str, request: ModelRequest) -> Part:
    """Make the model in float32, with its own weights, those of a file, or random ones.

    Of a model with a head that features are wanted of, or that was made to pre-train one, this is
    its encoder: with the pooler that its own class gives it, trained with it. Raises InputError,
    and UnavailableError for weights on a hub that cannot be reached.
    """
    if hasattr(config, "use_pretrained_backbone"):
        config.use_pretrained_backbone = False  # the checkpoint holds the backbone's weights
    needs = beside_an_image(kind, config)
    if needs and request.task not in ("features", "dense"):
        raise _incomplete(kind, needs, _encoder_class(kind, config), f"hf:{name}")
    model, loading_info = _from_pretrained(kind, config, name, request)
    poolers = [key for key in loading_info["missing_keys"] if key.startswith("pooler.")]
    if poolers and "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        model, loading_info = _from_pretrained(kind, config, name, request, add_pooling_layer=False)
    part = ""
    whole = has_towers(kind)
    if not whole and (needs or request.task == "features" or kind.__name__.endswith(_MASKED)):
        part = encoder(model)
        if needs and not part:
            raise _incomplete(kind, needs, "", f"hf:{name}")
        if not part and "For" in kind.__name__:
            raise InputError(
                f"hf:{name}: {kind.__name__} holds no encoder that stands alone", fix=TAKEN
            )
    texts = bool(request.classes) or not whole
    _refuse_misfit(loading_info, part, texts, request.weights or f"hf:{name}")
    module: Any = model.get_submodule(part)
    _settle(module)
    return Part(module.float().eval(), part)


def beside_an_image(kind: Any, config: Any) -> str:
    """What a model needs but one image, as text for an error; empty where that is all."""
    frames = getattr(config, "num_frames", None)
    if frames and not hasattr(config, "vision_config") and "ForImage" not in kind.__name__:
        return f"a video of {frames} frames"
    if kind.__name__.endswith(_OF_PAIRS):
        return "a pair of images"
    forward = kind.get_image_features if has_towers(kind) else kind.forward
    parameters = inspect.signature(forward).parameters.values()
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.name not in ("self", "pixel_values")
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and (parameter.default is parameter.empty or _PROMPT.match(parameter.name))
    ]
    return ", ".join(f"`{name}`" for name in needed)


def encoder(model: Any) -> str:
    """The outermost part of `model` that makes features of one image; empty where none does."""
    from transformers import PreTrainedModel

    kind = type(model)
    if kind.__name__.endswith(_OF_PAIRS):
        return ""
    if kind.__name__.endswith(("Model", "Backbone")) and not beside_an_image(kind, model.config):
        return ""
    parts = [
        name
        for name, part in model.named_modules()
        if name
        and isinstance(part, PreTrainedModel)
        and "For" not in type(part).__name__
        and not has_towers(type(part))
        and "pixel_values" in inspect.signature(part.forward).parameters
        and not beside_an_image(type(part), part.config)
    ]
    own = [name for name in parts if name == model.base_model_prefix]
    return min(own or parts, key=lambda name: name.count("."), default="")


def _encoder_class(kind: Any, config: Any) -> str:
    """What `encoder` of such a model is called; empty where there is none."""
    with contextlib.suppress(Exception), torch.device("meta"):  # whatever a config lacks
        model = kind._from_config(config)
        if part := encoder(model):
            return type(model.get_submodule(part)).__name__
    return ""


def _first_argument(kind: Any) -> str:
    """What a model that takes no `pixel_values` takes in their place."""
    arguments = list(inspect.signature(kind.forward).parameters)
    return kind.main_input_name if kind.main_input_name in arguments else arguments[1]


def _incomplete(kind: Any, needs: str, part: str, source: str) -> InputError:
    """The error of a model that needs more than an image; its fix is the part that does not."""
    does = "does not run on an image alone"
    if "`input_points`" in needs:  # it runs without, on prompts of its own that name nothing
        does = "segments what prompts name, not an image alone"
    return InputError(
        f"{source}: {kind.__name__} {does}: it needs {needs}",
        fix=f"take its {part} with `task='features'`" if part else TAKEN,
    )


def _from_pretrained(
    kind: Any, config: Any, name: str, request: ModelRequest, **options: bool
) -> tuple[Any, dict[str, Any]]:
    """The model with what fits of its weights, and what does not, as transformers lists it."""
    source = f"hf:{name}"
    shared = {"attn_implementation": "eager", "dtype": torch.float32}  # its parts get quantized
    weights: dict[str, Any] = {}
    if request.weights and not request.shapes_only:
        weights["state_dict"] = checkpoints.read_tensors(request.weights)
    if not request.shapes_only:
        _check_size(kind, config, source, **options)
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


def _check_size(kind: Any, config: Any, source: str, **options: bool) -> None:
    """Raise InputError where a model of `config` would be larger than this machine's memory."""
    try:
        with torch.device("meta"):
            model = kind._from_config(config, **options)
        size_bytes = 4 * sum(tensor.numel() for tensor in model.parameters())
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except Exception:  # whatever a config lacks: it is made again, and said then
        return
    if size_bytes > memory_bytes:
        raise InputError(
            f"{source}: its config.json is of a model of {size_bytes / 1e9:,.0f} GB, and this "
            f"machine has {memory_bytes / 1e9:,.0f}",
            fix="is it the right config.json?",
        )


def _settle(module: Any) -> None:
    """Fix what a module does at random, or decides by a buffer, which no export can follow."""
    for layer in module.modules():
        if hasattr(layer, "is_mae"):  # Hiera
            layer.is_mae = False
        elif hasattr(layer, "random_masking"):
            layer.random_masking = _every_patch
        if isinstance(shares := getattr(layer, "attn_mask_probs", None), Tensor):  # EoMT
            del layer.attn_mask_probs
            layer.attn_mask_probs = shares.tolist()


def _every_patch(patches: Tensor, noise: Tensor | None = None) -> tuple[Tensor, None, None]:
    """In place of MAE's `random_masking`, for learning: features are of the whole image."""
    return patches, None, None


def _refuse_misfit(
    loading_info: dict[str, Any], part: str, texts: bool, source: str | Path
) -> None:
    """Raise InputError for tensors that the exported `part` of a model lacks, or lacks room for.

    Those of its text tower count where `texts` do.
    """

    def counts(key: str) -> bool:
        return key.startswith(f"{part}.") if part else texts or not of_texts(key)

    misfit.refuse_misfit(
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

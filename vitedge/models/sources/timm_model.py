"""timm:NAME, with the weights, preprocessing and labels that timm has for it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vitedge.core.errors import InputError, VitedgeError, error_line, nearest
from vitedge.models.preprocessing import from_timm
from vitedge.models.sources import checkpoints, misfit, model_folder, random_weights, sizes
from vitedge.models.sources.base import (
    Missing,
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    any_file,
    bundle_name,
    downloaded,
    not_here,
    stay_offline_if_unreachable,
    unavailable,
)
from vitedge.models.sources.imports import unimportable
from vitedge.models.sources.labels import class_names, numbers_note

LOCAL = ("local-dir:", "hf-hub:")
"""Schemes of timm's own: a folder with config.json and weights, here or on the hub."""


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """Build `name` by timm. Raises InputError and UnavailableError."""
    stay_offline_if_unreachable()
    try:
        import timm
        import timm.data
        import timm.layers
    except (ImportError, RuntimeError) as error:
        raise unimportable("timm", "timm", error) from error

    if not name.startswith(LOCAL) and not timm.is_model(name):
        known = timm.list_models()
        raise InputError(f"timm has no model '{name}'", fix=nearest(name.split(".")[0], known))
    if name.startswith(LOCAL):
        model_folder.check(name.partition(":")[2])
    if request.task in ("segmentation", "dense"):
        raise InputError("timm's models classify or give features", fix="drop `task`")
    timm.layers.set_fused_attn(False)  # its parts, not one operator, are what gets quantized
    torch.manual_seed(0)
    pretrained = not (request.random_weights or request.weights or request.shapes_only)
    options: dict[str, Any] = {"num_classes": 0} if request.task == "features" else {}
    preprocess = request.own_preprocess()
    size = (preprocess.height, preprocess.width) if preprocess else None

    def make(size: sizes.Size | None, **further: Any) -> Any:
        return _of_size(
            lambda **sized: timm.create_model(name, **options, **further, **sized), size
        )

    source = f"timm:{name}"
    try:
        with sizes.told(lambda size: make(size)(sizes.black(size)), size, source):
            module = make(size, pretrained=pretrained)
            if size:
                with torch.no_grad():
                    module(sizes.black(size))
    except VitedgeError:
        raise
    except Exception as error:  # hub, OS, pickle, safetensors and shape errors alike
        raise _refusal(name, pretrained, error) from error
    names, notes = _labels(module), tuple[str, ...]()
    if request.weights:
        usual = module.num_classes
        module, count = checkpoints.load_weights(
            module,
            usual,
            request.weights,
            lambda count: make(size, num_classes=count),
        )
        if count != usual and not request.labels:
            names, notes = (), (numbers_note(request.weights, count, usual),)
    preprocess = preprocess or from_timm(module.pretrained_cfg)
    if request.random_weights:
        random_weights.spread(module, preprocess)
    state = module.state_dict()
    checkpoints.require_finite(state, source)
    classes = module.num_classes
    identity = ModelIdentity(
        name=bundle_name(name.removeprefix("local-dir:").rstrip("/").rpartition("/")[2]),
        source=source,
        weights_sha256=checkpoints.digest(state),
        preprocess=preprocess,
        task="classification" if classes else "features",
        labels=class_names(request.labels, names, classes, source) if classes else (),
        trained=not request.random_weights,
        notes=notes,
    )
    missing: Missing = {}
    if not (request.random_weights or request.weights or _here(module.pretrained_cfg)):
        missing = {"weights": not_here(source)}
    return ReferenceModel(identity, module, missing=missing)


def _here(cfg: Mapping[str, Any]) -> bool:
    """Whether the weights that a `pretrained_cfg` names are on this machine."""
    if file := cfg.get("file"):
        return Path(file).is_file()
    names = (cfg.get("hf_hub_filename"), "model.safetensors", "pytorch_model.bin")
    place, url = cfg.get("hf_hub_id"), cfg.get("url")
    if place and any_file(place, [name for name in names if name]):
        return True
    return bool(url) and downloaded(str(url))


def _of_size(make: Callable[..., Any], size: sizes.Size | None) -> Any:
    """A model for images of `size`, made for that where it is not one for any size."""
    module = make().eval()
    built = getattr(getattr(module, "patch_embed", None), "img_size", None)
    if size is None or (built and tuple(built) == size):
        return module
    if built is None:
        with contextlib.suppress(Exception), torch.no_grad():  # whatever a module raises
            module(sizes.black(size))
            return module
        inits = [vars(kind).get("__init__", object) for kind in type(module).__mro__]
        if not any("img_size" in inspect.signature(init).parameters for init in inits):
            return module
    return make(img_size=size).eval()


def _refusal(name: str, pretrained: bool, error: Exception) -> Exception:
    """What to tell the user of timm's `error`."""
    misfit.refuse_misfit(
        misfit.misfit(error), f"timm:{name}", fix="give the weights of this config.json"
    )
    fetching = isinstance(error, OSError) or "No pretrained weights" in str(error)
    if pretrained and fetching and not name.startswith(LOCAL[0]):
        return unavailable(f"timm:{name}", error_line(error))
    return InputError(
        f"timm cannot make '{name}': {error_line(error)}", fix="check its config.json and weights"
    )


def _labels(module: Any) -> tuple[str, ...]:
    """Class names from the weights' config, or ImageNet's where they were trained on that."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    cfg = module.pretrained_cfg
    if names := cfg.get("label_names"):
        return tuple(names)
    subset = infer_imagenet_subset(cfg)
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    if info.num_classes() != module.num_classes:
        return ()
    return tuple(info.index_to_description(index) for index in range(module.num_classes))

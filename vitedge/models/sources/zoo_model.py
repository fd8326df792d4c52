"""The models of our own zoo, and weights files that fit them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vitedge.core.errors import InputError, nearest
from vitedge.core.spec import Preprocess
from vitedge.models import zoo
from vitedge.models.sources import checkpoints, random_weights
from vitedge.models.sources.base import (
    Missing,
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    bundle_name,
)
from vitedge.models.sources.labels import class_names, numbers_note
from vitedge.models.zoo import OWN_DATA, ZOO, ZooModel
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import Config, ViTConfig

CLASSES = 2**20
"""Of a weights file; no data set has as many."""
EMBEDDED_WEIGHTS = {name: Path(zoo.__file__).with_name(f"{name}.safetensors") for name in OWN_DATA}


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """A zoo model with its embedded weights, a file's, or random ones. Raises InputError."""
    weights = request.weights
    missing: Missing = {}
    if not request.random_weights:
        weights = weights or EMBEDDED_WEIGHTS.get(name)
        if not weights:
            error = InputError(
                f"'{name}' comes without weights",
                fix="pass `weights=FILE` (timm's, Hugging Face's, torchvision's, DeiT's, MAE's or "
                "the original layout), or `random_weights=True` to measure latency only",
            )
            if not request.shapes_only:
                raise error
            missing = {"weights": error}
    return replace(_build(name, name, weights, request), missing=missing)


def load_file(path: Path, request: ModelRequest) -> ReferenceModel:
    """FILE.safetensors, .pt or .npz of the architecture asked for. Raises InputError."""
    if not request.arch:
        state = checkpoints.read(path)
        raise InputError(
            f"{path} holds weights only",
            fix=f"name their architecture with `arch=NAME`; {checkpoints.nearest_arch(state)}",
        )
    if request.arch not in ZOO:
        raise InputError(f"unknown `arch` '{request.arch}'", fix=nearest(request.arch, ZOO))
    return _build(request.arch, bundle_name(path.stem), path, request)


def _build(arch: str, name: str, weights: Path | None, request: ModelRequest) -> ReferenceModel:
    card, config = ZOO[arch], ZOO[arch].config
    state = checkpoints.read(weights) if weights else {}
    if state:
        config = checkpoints.adapt(config, state)
        if config.num_classes > CLASSES:
            raise InputError(
                f"{weights} has a head of {config.num_classes:,} classes, and {CLASSES:,} are read "
                "at most",
                fix="is it the right file?",
            )
        if not config.num_classes and request.task != "features":
            raise InputError(
                f"{weights} has no classifier head: it is an encoder",
                fix="pass `task='features'`, or give fine-tuned weights",
            )
    task = request.task or card.task
    if task == "features" and isinstance(config, ViTConfig):
        config = replace(config, num_classes=0)
        state = checkpoints.without_head(state)
    elif task != card.task:
        raise InputError(f"'{arch}' does {card.task}, not {task}", fix="drop `task`")
    preprocess = request.own_preprocess() or card.preprocess
    config = _of_size(config, preprocess)
    fitted = checkpoints.at_resolution(config, state)
    torch.manual_seed(0)  # random weights are the same on every export
    module = build(config).eval()
    if weights:
        checkpoints.load_into(module, fitted, weights)
    else:
        random_weights.spread(module, preprocess)
    usual, count = card.config.num_classes, config.num_classes
    names = card.labels if count == usual else ()
    notes = list(_notes(card, request, fitted is not state)) if state else []
    if weights and count not in (0, usual) and not request.labels:
        notes.append(numbers_note(weights, count, usual))
    identity = ModelIdentity(
        name=name,
        source=arch,
        weights_sha256=checkpoints.digest(module.state_dict()),
        preprocess=preprocess,
        task=task,
        labels=class_names(request.labels, names, count, arch) if count else (),
        trained=weights is not None,
        notes=tuple(notes),
        detection=card.detection if task == card.task else None,
    )
    return ReferenceModel(identity, module, ("logits", "boxes") if identity.detection else ())


def _notes(card: ZooModel, request: ModelRequest, interpolated: bool) -> Iterator[str]:
    """What a weights file does not say, and was assumed."""
    if card.data:
        return
    if not request.preprocess:
        mean = ", ".join(f"{value:g}" for value in card.preprocess.mean)
        yield (
            f"weights do not say how their images were made: as those of {card.name} "
            f"(mean {mean}, {card.preprocess.interpolation}), unless `preprocess` says otherwise"
        )
    if interpolated:
        yield "the weights are of another resolution: their position embeddings were interpolated"


def _of_size(config: Config, preprocess: Preprocess) -> Config:
    """`config` for the input size of `preprocess`. Raises InputError unless it is cut evenly."""
    size = (preprocess.height, preprocess.width)
    step_px = getattr(config, "patch_size", 32)  # a CNN's coarsest map
    if any(side % step_px for side in size):
        raise InputError(
            f"{size[0]}×{size[1]} pixels cannot be cut into steps of {step_px}",
            fix=f"set height and width of `preprocess` to multiples of {step_px}",
        )
    return replace(config, image_size=size)

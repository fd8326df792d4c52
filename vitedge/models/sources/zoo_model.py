"""The models of our own zoo, and weights files that fit them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vitedge.core.errors import InputError, nearest
from vitedge.core.spec import Preprocess
from vitedge.data.open import EMBEDDED
from vitedge.models import zoo
from vitedge.models.sources import checkpoints
from vitedge.models.sources.base import (
    ModelIdentity,
    ModelRequest,
    ReferenceModel,
    bundle_name,
    numbered,
)
from vitedge.models.zoo import ZOO, ZooModel
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import Config, HybridConfig, ViTConfig

EMBEDDED_WEIGHTS = {name: Path(zoo.__file__).with_name(f"{name}.safetensors") for name in EMBEDDED}
HEADS = ("head.", "head_dist.")


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """A zoo model with its embedded weights, --weights or --random-weights. Raises InputError."""
    weights = request.weights
    if not request.random_weights:
        weights = weights or EMBEDDED_WEIGHTS.get(name)
        if not weights:
            raise InputError(
                f"'{name}' comes without weights",
                fix="pass --weights FILE (timm's, Hugging Face's, torchvision's, DeiT's, MAE's or "
                "the original layout), or --random-weights to measure latency only",
            )
    return _build(name, name, weights, request)


def load_file(path: Path, request: ModelRequest) -> ReferenceModel:
    """FILE.safetensors, .pt or .npz of the architecture --arch names. Raises InputError."""
    if not request.arch:
        state = checkpoints.read(path)
        raise InputError(
            f"{path} holds weights only",
            fix=f"name their architecture with --arch NAME; {checkpoints.nearest_arch(state, ZOO)}",
        )
    if request.arch not in ZOO:
        raise InputError(f"unknown --arch '{request.arch}'", fix=nearest(request.arch, ZOO))
    return _build(request.arch, bundle_name(path.stem), path, request)


def _build(arch: str, name: str, weights: Path | None, request: ModelRequest) -> ReferenceModel:
    card, config = ZOO[arch], ZOO[arch].config
    state = checkpoints.read(weights) if weights else {}
    if state:
        config = checkpoints.adapt(config, state)
        if not config.num_classes and request.task != "features":
            raise InputError(
                f"{weights} has no classifier head: it is an encoder",
                fix="pass --task features, or give fine-tuned weights",
            )
    task = request.task or card.task
    if task == "features" and isinstance(config, (ViTConfig, HybridConfig)):
        config = _headless(config)
        state = {key: value for key, value in state.items() if not key.startswith(HEADS)}
    elif task != card.task:
        raise InputError(f"'{arch}' does {card.task}, not {task}", fix="drop --task")
    preprocess = request.own_preprocess() or card.preprocess
    config = _of_size(config, preprocess)
    torch.manual_seed(0)  # random weights are the same on every export
    module = build(config).eval()
    if weights:
        checkpoints.load_into(module, state, weights)
    same_classes = config.num_classes == card.config.num_classes
    identity = ModelIdentity(
        name=name,
        source=arch,
        weights_sha256=checkpoints.digest(module.state_dict()),
        preprocess=preprocess,
        task=task,
        labels=card.labels if same_classes else numbered(config.num_classes),
        trained=weights is not None,
        notes=tuple(_notes(card, config, state, request)),
    )
    return ReferenceModel(identity, module)


def _notes(
    card: ZooModel, config: Config, state: Mapping[str, Tensor], request: ModelRequest
) -> Iterator[str]:
    """What a weights file does not say, and was assumed."""
    if not state or card.name in EMBEDDED:
        return
    if not request.preprocess:
        mean = ", ".join(f"{value:g}" for value in card.preprocess.mean)
        yield (
            f"weights do not say how their images were made: as those of {card.name} "
            f"(mean {mean}, {card.preprocess.interpolation}), unless --preprocess says otherwise"
        )
    vit = config.vit if isinstance(config, HybridConfig) else config
    positions = state.get("pos_embed")
    if isinstance(vit, ViTConfig) and positions is not None and positions.shape[1] != vit.tokens:
        yield "the weights are of another resolution: their position embeddings were interpolated"


def _headless(config: ViTConfig | HybridConfig) -> ViTConfig | HybridConfig:
    if isinstance(config, HybridConfig):
        return replace(config, vit=replace(config.vit, num_classes=0))
    return replace(config, num_classes=0)


def _of_size(config: Config, preprocess: Preprocess) -> Config:
    """`config` for the input size of `preprocess`. Raises InputError unless it is cut evenly."""
    size = (preprocess.height, preprocess.width)
    if size == config.image_size:
        return config
    step_px = 32  # of the coarsest feature map of a CNN
    if isinstance(config, HybridConfig):
        step_px = config.vit.patch_size
    elif isinstance(config, ViTConfig):
        step_px = config.patch_size
    if any(side % step_px for side in size):
        raise InputError(
            f"{size[0]}×{size[1]} pixels cannot be cut into steps of {step_px}",
            fix=f"set height and width of --preprocess to multiples of {step_px}",
        )
    if isinstance(config, HybridConfig):
        return replace(config, vit=replace(config.vit, image_size=size))
    return replace(config, image_size=size)

"""From what the user typed as MODEL to a model that can be exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.artifact import sha256
from vitedge.errors import InputError, nearest
from vitedge.models.zoo import ZOO, ZooModel
from vitedge.spec import Preprocess, load_toml

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

DIGITS_WEIGHTS = Path(__file__).with_name("digits.safetensors")


@dataclass(frozen=True)
class Request:
    """MODEL and the flags that say how to read it."""

    model: str = ""
    """Empty for the embedded reference, a zoo name, or a file."""
    arch: str = ""
    weights: Path | None = None
    preprocess: Path | None = None
    random_weights: bool = False


@dataclass(frozen=True)
class Identity:
    """What is known of a model besides its weights."""

    name: str
    source: str
    weights_sha256: str
    preprocess: Preprocess
    labels: tuple[str, ...]
    trained: bool


@dataclass(frozen=True)
class ReferenceModel:
    """The model every artifact is measured against."""

    identity: Identity
    content: nn.Module | ModelProto
    """A torch module, (B, 3, H, W) float32 -> (B, classes) float32, or an ONNX graph."""


def resolve(request: Request) -> ReferenceModel:
    """Find and load the model of `request`.

    Raises InputError for an unknown name, missing or unfit weights, and flags that do not
    belong together.
    """
    path = Path(request.model)
    preprocess = load_toml(request.preprocess, Preprocess) if request.preprocess else None
    if path.suffix == ".onnx":
        _refuse(request, arch="--arch", weights="--weights", random_weights="--random-weights")
        return _from_onnx(path, preprocess)
    if path.suffix in (".safetensors", ".pt", ".pth"):
        _refuse(request, weights="--weights", random_weights="--random-weights")
        if not request.arch:
            raise InputError(
                f"{path} holds weights only", fix="name their architecture with --arch NAME"
            )
        return _from_zoo(_card(request.arch), path.stem, path, preprocess)
    _refuse(request, arch="--arch")
    card = _card(request.model or "digits")
    weights = request.weights
    if card.name == "digits" and not request.random_weights:
        weights = weights or DIGITS_WEIGHTS
    if weights and request.random_weights:
        raise InputError("--weights and --random-weights exclude each other", fix="drop one")
    if not weights and not request.random_weights:
        raise InputError(
            f"'{card.name}' comes without weights",
            fix="pass --weights FILE.safetensors (timm's layout), "
            "or --random-weights to measure latency only",
        )
    return _from_zoo(card, card.name, weights, preprocess)


def _card(name: str) -> ZooModel:
    if name not in ZOO:
        raise InputError(
            f"unknown model '{name}'",
            fix=f"{nearest(name, ZOO)} A file ends in .onnx, .safetensors or .pt",
        )
    return ZOO[name]


def _refuse(request: Request, **flags: str) -> None:
    """Refuse each of `flags` (field of the request -> how the user spells it) where it is set."""
    for field, flag in flags.items():
        if getattr(request, field):
            raise InputError(
                f"{flag} does not apply to '{request.model or 'digits'}'", fix="drop the flag"
            )


def _from_zoo(
    card: ZooModel, name: str, weights: Path | None, preprocess: Preprocess | None
) -> ReferenceModel:
    import torch

    from vitedge.models import checkpoints
    from vitedge.models.vit import VisionTransformer

    torch.manual_seed(0)  # random weights are the same on every export
    module = VisionTransformer(card.config).eval()
    if weights:
        checkpoints.load_into(module, checkpoints.read(weights), weights)
    identity = Identity(
        name=name,
        source=card.name,
        weights_sha256=checkpoints.digest(module.state_dict()),
        preprocess=preprocess or card.preprocess,
        labels=card.labels,
        trained=weights is not None,
    )
    return ReferenceModel(identity, module)


def _from_onnx(path: Path, preprocess: Preprocess | None) -> ReferenceModel:
    from vitedge.graph import files

    model = files.read(path)
    spec, classes = files.image_classifier(model, path, preprocess)
    identity = Identity(
        name=path.stem,
        source=path.name,
        weights_sha256=sha256(path),
        preprocess=spec,
        labels=tuple(str(index) for index in range(classes)),
        trained=True,
    )
    return ReferenceModel(identity, model)

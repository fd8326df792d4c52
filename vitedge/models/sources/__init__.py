"""From what the user typed as MODEL to a model that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vitedge.core.errors import InputError, nearest
from vitedge.models.sources.base import ModelIdentity, ModelRequest, ReferenceModel, refuse_flags
from vitedge.models.zoo import ZOO

__all__ = ["ModelIdentity", "ModelRequest", "ReferenceModel", "resolve"]

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz")


def resolve(request: ModelRequest) -> ReferenceModel:
    """Find and load the model of `request`.

    Raises InputError for an unknown name, missing or unfit weights, and flags that do not
    belong together; UnavailableError for weights that cannot be fetched here.
    """
    if request.weights and request.random_weights:
        raise InputError("--weights and --random-weights exclude each other", fix="drop one")
    prefix, colon, name = request.model.partition(":")
    if colon and prefix in _libraries():
        refuse_flags(request, arch="--arch")
        return _libraries()[prefix](name, request)
    path = Path(request.model)
    if path.suffix == ".onnx":
        from vitedge.models.sources import onnx_file

        refuse_flags(request, arch="--arch", weights="--weights", random_weights="--random-weights")
        return onnx_file.load(path, request)

    from vitedge.models.sources import zoo_model

    if path.suffix in WEIGHTS_SUFFIXES and request.model not in ZOO:
        refuse_flags(request, weights="--weights", random_weights="--random-weights")
        return zoo_model.load_file(path, request)
    refuse_flags(request, arch="--arch")
    return zoo_model.load(_known(request.model or "digits"), request)


def _libraries() -> dict[str, Callable[[str, ModelRequest], ReferenceModel]]:
    """What stands before the colon -> its loader."""

    def timm(name: str, request: ModelRequest) -> ReferenceModel:
        from vitedge.models.sources import timm_model

        return timm_model.load(name, request)

    def hf(name: str, request: ModelRequest) -> ReferenceModel:
        from vitedge.models.sources import hf_model

        return hf_model.load(name, request)

    def torchvision(name: str, request: ModelRequest) -> ReferenceModel:
        from vitedge.models.sources import torchvision_model

        return torchvision_model.load(name, request)

    return {"timm": timm, "hf": hf, "torchvision": torchvision}


def _known(name: str) -> str:
    if name not in ZOO:
        raise InputError(
            f"unknown model '{name}'",
            fix=f"{nearest(name, ZOO)} Others: timm:NAME, hf:ID-or-directory, torchvision:NAME, "
            "FILE.onnx, FILE.safetensors or .pt with --arch",
        )
    return name

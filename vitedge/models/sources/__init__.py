"""From what the user typed as MODEL to a model that can be exported."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

from vitedge.core.errors import InputError, UnavailableError, error_line, nearest
from vitedge.models.sources.base import ModelIdentity, ModelRequest, ReferenceModel, refuse
from vitedge.models.zoo import ZOO

__all__ = ["ModelIdentity", "ModelRequest", "ReferenceModel", "resolve"]

LIBRARIES = ("timm", "hf", "torchvision")
"""What may stand before a colon; `<library>_model` loads what stands after it."""
ENTRY_POINTS = "vitedge.sources"
"""A third party's: an entry point's name may stand before a colon, too. It is a function of what
stands after it and the `ModelRequest`, and returns a `ReferenceModel`."""
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz")
OTHERS = (
    "Others: timm:NAME, hf:ID-or-directory, hf:USER/REPO/FILE.onnx, torchvision:NAME, FILE.onnx, "
    "FILE.safetensors or .pt with `arch`"
)
"""What a model may be beside a name of the zoo."""


def is_model(text: str) -> bool:
    """Whether `resolve` would know what kind of model `text` is."""
    suffix = Path(text).suffix
    weights = suffix in WEIGHTS_SUFFIXES and not Path(text).is_dir()
    prefix, colon, _ = text.partition(":")
    library = bool(colon) and (prefix in LIBRARIES or _plugged(prefix) is not None)
    return text in ("", *ZOO) or library or suffix == ".onnx" or weights


def check_name(text: str) -> None:
    """Raises InputError for a `text` that names no model."""
    if not is_model(text):
        raise InputError(f"unknown model '{text}'", fix=f"{nearest(text, ZOO)} {OTHERS}")


def resolve(request: ModelRequest) -> ReferenceModel:
    """Find and load the model of `request`.

    Raises InputError for an unknown name, missing or unfit weights, and parameters that do not
    belong together; UnavailableError for weights that cannot be fetched here.
    """
    model = _resolve(request)
    if request.labels and not model.identity.labels:
        raise InputError(f"{model.identity.source} gives no classes to name", fix="drop `labels`")
    return model


def _refuse_classes(request: ModelRequest) -> None:
    """Raise InputError for classes that no text tower can read."""
    if request.prompt and not request.classes:
        raise InputError(
            "`prompt` is the text of one of `classes`, and there are none",
            fix="pass `classes`, or drop `prompt`",
        )
    if request.prompt and "{}" not in request.prompt:
        raise InputError(
            f"`prompt` '{request.prompt}' has no {{}} where the class stands",
            fix="write it as in 'a photo of a {}'",
        )
    name = request.model if isinstance(request.model, str) else "a module"
    if request.classes and not name.startswith("hf:"):
        raise InputError(
            f"`classes` are texts, and '{name or 'digits'}' has no text tower",
            fix="drop `classes`, or give a CLIP or SigLIP as hf:ID-or-directory",
        )
    if request.classes and request.labels:
        raise InputError("`classes` are the labels, too", fix="drop `labels`")


def _resolve(request: ModelRequest) -> ReferenceModel:
    if request.weights and request.random_weights:
        raise InputError("`weights` and `random_weights` exclude each other", fix="drop one")
    _refuse_classes(request)
    if not str(request.model).endswith(".onnx"):
        refuse(request, "height", "width")
    if not isinstance(request.model, str):
        from vitedge.models.sources import module

        return module.load(request.model, request)
    refuse(request, "name")
    prefix, colon, name = request.model.partition(":")
    if prefix == "hf" and name.partition("@")[0].endswith(".onnx"):
        from vitedge.models.sources import hub_file

        if hub_file.is_hub_file(name):
            return hub_file.load(name, request)
    if colon and prefix in LIBRARIES:
        refuse(request, "arch", *(["model_output"] if prefix == "timm" else []))
        library = import_module(f"vitedge.models.sources.{prefix}_model")
        loaded: ReferenceModel = library.load(name, request)
        return loaded
    if colon and (entry := _plugged(prefix)):
        return _load_plugged(entry, name, request)
    path = Path(request.model)
    if path.suffix == ".onnx":
        from vitedge.models.sources import onnx_file

        refuse(request, "arch", "weights", "random_weights")
        return onnx_file.load(path, request)

    from vitedge.models.sources import zoo_model

    known = request.model or "digits"
    if path.suffix in WEIGHTS_SUFFIXES and known not in ZOO:
        refuse(request, "weights", "random_weights", "model_output")
        return zoo_model.load_file(path, request)
    refuse(request, "arch", "model_output")
    check_name(known)
    return zoo_model.load(known, request)


def _plugged(prefix: str) -> metadata.EntryPoint | None:
    """The source that a third party registers as `prefix`."""
    return next(iter(metadata.entry_points(group=ENTRY_POINTS, name=prefix)), None)


def _load_plugged(entry: metadata.EntryPoint, name: str, request: ModelRequest) -> ReferenceModel:
    """Raises UnavailableError where a source does not load, InputError where it gives no model."""
    try:
        load = entry.load()
    except Exception as error:  # whatever a third party's module raises
        raise UnavailableError(
            f"the source '{entry.name}' does not load: {error_line(error)}",
            fix=f"install what '{entry.value}' needs, or take its package away",
        ) from error
    model = load(name, request)
    if not isinstance(model, ReferenceModel):
        raise InputError(
            f"the source '{entry.name}' gives {type(model).__name__}, and no ReferenceModel",
            fix="mend its package: see docs/plugins.md",
        )
    return model

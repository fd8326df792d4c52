"""The API's part on models: `vitedge.load`, and `vitedge.models`, those known by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from vitedge.core.api import AnyPath, Names, several
from vitedge.core.errors import InputError, UnavailableError, error_line, missing, nearest
from vitedge.core.spec import Positive

if TYPE_CHECKING:
    from torch import nn

    from vitedge.core.spec import Preprocess, Task
    from vitedge.models.sources import ModelRequest, ReferenceModel

AnyModel: TypeAlias = "AnyPath | nn.Module | ReferenceModel"
Classes: TypeAlias = "AnyPath | Sequence[str]"


def load(
    model: AnyModel = "",
    *,
    weights: AnyPath | None = None,
    arch: str = "",
    random_weights: bool = False,
    task: Task | None = None,
    preprocess: AnyPath | Preprocess | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    labels: Sequence[str] = (),
    classes: Classes | None = None,
    prompt: str = "",
    name: str = "",
    model_output: Names = (),
) -> ReferenceModel:
    """Find and load a model, or take a module in memory, to be exported.

    Args:
        model: A name or file as `vitedge export` takes it (empty: the embedded reference), or an
            `nn.Module`, (B, 3, H, W) float32 -> a float32 tensor, or several in a dict, a tuple or
            a dataclass. A copy of it is what is used.
        weights: A file of weights for a named model.
        arch: Architecture of a file of weights.
        random_weights: Untrained weights: latency only.
        task: classification, segmentation, detection, dense or features; default: what the source
            says.
        preprocess: How images become its input: a Preprocess, a .toml or .json, or a
            preprocessor_config.json. A module needs one.
        height: Pixels, where an ONNX file leaves them open; default: what `preprocess` says.
        width: Likewise.
        labels: Class names, in the order of its outputs; default: what the source says, or numbers.
        classes: Names, or a text file with one a line: a model of images and texts (CLIP, SigLIP)
            becomes a classifier of them. Without, its image encoder is taken.
        prompt: The text of one class, {} in its place; default: 'a photo of a {}'.
        name: What artifacts of a module are called; default: its class.
        model_output: Outputs to keep, the main one first; default: what is float32, and the first
            that fits the task is the main one.

    Raises:
        InputError: an unknown name, missing or unfit weights, parameters that do not go together.
        UnavailableError: a package is missing, or weights cannot be fetched here.
    """
    return loaded(request(**locals()))


def models() -> dict[str, dict[str, object]]:
    """The models vitedge knows by name, and what is known of each without loading it."""
    from vitedge.models.zoo import ZOO

    return {name: model.card() for name, model in ZOO.items()}


def request(
    model: AnyModel,
    *,
    weights: AnyPath | None,
    preprocess: AnyPath | Preprocess | None,
    task: Task | None,
    labels: Sequence[str] = (),
    classes: Classes | None = None,
    model_output: Names = (),
    **further: Any,
) -> ModelRequest | ReferenceModel:
    """The parameters of `load` as one, for those that load later. Raises InputError."""
    from vitedge.core.spec import Preprocess, Task
    from vitedge.models.sources.base import ModelRequest, ReferenceModel
    from vitedge.models.sources.labels import read_classes

    if task not in (None, *get_args(Task)):
        raise InputError(f"unknown `task` '{task}'", fix=nearest(str(task), get_args(Task)))
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        preprocess = Path(preprocess)
    asked = ModelRequest(
        weights=None if weights is None else Path(weights),
        preprocess=preprocess,
        task=task,
        labels=tuple(labels),
        classes=() if classes is None else read_classes(classes),
        model_output=tuple(several(model_output)),
        **further,
    )
    if not isinstance(model, ReferenceModel):
        return replace(asked, model=os.fspath(model) if isinstance(model, os.PathLike) else model)
    if asked != ModelRequest():
        raise InputError(
            "a model that is loaded takes no parameters of `load`", fix="give them to `load`"
        )
    return model


def shapes_of(asked: ModelRequest | ReferenceModel) -> ReferenceModel:
    """What was asked for by its shapes alone: no weights are fetched, read or made.

    A torch module is on the meta device. Raises as `loaded` does, but for what is `missing`.
    """
    from vitedge.models.sources import ReferenceModel

    try:
        import torch

        from vitedge.models.sources.module import on_meta
    except ImportError as error:
        raise missing(error.name or "torch", "export") from error

    if isinstance(asked, ReferenceModel):
        if not isinstance(asked.content, torch.nn.Module):
            return asked
        return replace(asked, content=on_meta(asked.content))
    with torch.device("meta"):
        return loaded(replace(asked, shapes_only=True))


def loaded(asked: ModelRequest | ReferenceModel) -> ReferenceModel:
    """What was asked for, unless it is there. Raises InputError, UnavailableError."""
    from vitedge.models.sources import ReferenceModel, resolve

    if isinstance(asked, ReferenceModel):
        return asked
    try:
        return resolve(asked)
    except ImportError as error:
        if error.name is None:
            raise UnavailableError(error_line(error), fix="install what it names") from error
        raise missing(error.name, "export") from error

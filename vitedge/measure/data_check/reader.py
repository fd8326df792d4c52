"""For whom images are read: a model, an artifact, or nobody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitedge.core.api import verified
from vitedge.core.bundle import MANIFEST, Bundle
from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess, Task
from vitedge.data.annotations import categories
from vitedge.data.boxes import ANNOTATIONS
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Source, open_images
from vitedge.models.api import request, shapes_of
from vitedge.models.sources.base import ModelRequest, refuse

_MASKED = ("images", "masks")


@dataclass(frozen=True)
class Reader:
    """For whom images are read: a model, or nobody."""

    model: str | None
    preprocess: Preprocess
    labels: tuple[str, ...]
    """Of nobody, those that masks or boxes may have; they are not a model's."""
    task: Task

    def open(self, source: Source, role: Literal["calibration", "evaluation"]) -> ImageSet:
        """As an export opens it. Raises InputError."""
        return open_images(source, role, self.preprocess, self.labels, self.task)


def reader_of(model: Any, source: Source, asked: Mapping[str, Any]) -> Reader:
    """A model, an artifact or, where `model` is empty, nobody; `asked` are parameters of `load`.

    Raises InputError and UnavailableError as loading does.
    """
    if isinstance(model, str) and not model:
        for name in ("weights", "arch", "preprocess", "classes"):
            if asked[name]:
                raise InputError(
                    f"`{name}` is of a `model`, and none is given",
                    fix=f"give `model`, or drop `{name}`",
                )
        return _nobody(source, asked["task"])
    if isinstance(model, Bundle) or (isinstance(model, (str, os.PathLike)) and _is_artifact(model)):
        refuse(ModelRequest(**asked), "weights", "arch", "preprocess", "classes", "task")
        bundle = verified(model)
        known = bundle.manifest
        return Reader(
            known.name, known.preprocessing.host, tuple(bundle.labels()), known.model.task
        )
    given = os.fspath(model) if isinstance(model, os.PathLike) else model
    identity = shapes_of(request(given, **asked)).identity
    return Reader(identity.name, identity.preprocess, identity.labels, identity.task)


def _is_artifact(model: str | os.PathLike[str]) -> bool:
    return (Path(model) / MANIFEST).is_file()


def _nobody(source: Source, task: Task | None) -> Reader:
    """Any class, at a size of its own."""
    path = Path(source) if isinstance(source, str) else None
    if path and task in (None, "detection") and (path / ANNOTATIONS).is_file():
        names = categories(str(path / ANNOTATIONS))
        preprocess = Preprocess(height=224, width=224, resize="exact")
        return Reader(None, preprocess, names, "detection")
    masked = source == "shapes" or bool(path and all((path / p).is_dir() for p in _MASKED))
    task = task or ("segmentation" if masked else "classification")
    labels = tuple(map(str, range(6 if source == "shapes" else 255)))
    preprocess = Preprocess(height=224, width=224, resize="exact")
    return Reader(None, preprocess, labels if task == "segmentation" else (), task)

"""FILE.onnx: anybody's image model."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx_ir as ir

from vitedge.core.errors import InputError
from vitedge.core.spec import Detection, Preprocess
from vitedge.graph import limits
from vitedge.graph.foreign.dimensions import bind, image_input
from vitedge.graph.io import image_model, read
from vitedge.models.sources import settings
from vitedge.models.sources.base import ModelIdentity, ModelRequest, ReferenceModel, bundle_name
from vitedge.models.sources.detectors import guessed
from vitedge.models.sources.labels import by_index, class_names
from vitedge.models.zoo import numbered


def load(path: Path, request: ModelRequest) -> ReferenceModel:
    """Read and check the file, and what lies beside it. Raises InputError."""
    file = read(path)
    model, notes = file.model, list[str]()
    given = _preprocess(model, path, request, notes)
    size = (given.height, given.width) if given else (request.height, request.width)
    image = image_input(model.graph)
    was_open = image is not None and 0 in image.size
    bind(model, path, *size)
    if was_open:  # else its sizes were looked at
        limits.check_sizes(model, path)
    preprocess, outputs = image_model(model, path, given, request.task, request.model_output)
    rule = None
    if outputs.task == "detection":
        rule = _rule(model, path, outputs.classes, request, notes)
    classes = outputs.classes - (rule.no_object if rule else 0)
    identity = ModelIdentity(
        name=bundle_name(path.stem),
        source=path.name,
        weights_sha256=file.sha256,
        preprocess=preprocess,
        task=outputs.task,
        labels=_labels(model, path, classes, request, notes),
        trained=True,
        notes=(*notes, *outputs.notes),
        detection=rule,
    )
    return ReferenceModel(identity, model)


def _preprocess(
    model: ir.Model, path: Path, request: ModelRequest, notes: list[str]
) -> Preprocess | None:
    """What the user, a file beside the model or its metadata say, for images of its size."""
    image = image_input(model.graph)
    if image is None:
        return None
    height, width = image.size
    asked = (request.height or height, request.width or width)
    if (height and asked[0] != height) or (width and asked[1] != width):
        raise InputError(
            f"{path} takes {height or '?'}×{width or '?'} pixels, not {asked[0]}×{asked[1]}",
            fix="drop `height` and `width`, or export it with these dimensions open",
        )
    preprocess = request.own_preprocess(asked)
    if preprocess is None and image.value.dtype == ir.DataType.FLOAT:
        file = settings.processor_beside(path)
        if file is not None:
            notes.append(f"images are made as {file.name} says, unless `preprocess` says otherwise")
            preprocess = settings.read_preprocess(file, asked, notes)
        else:
            preprocess = settings.preprocess_in(model.metadata_props, asked)
        if preprocess is not None:
            return settings.of_size(preprocess, *asked)
    return preprocess and settings.of_size(preprocess, request.height, request.width)


def _rule(
    model: ir.Model, path: Path, columns: int, request: ModelRequest, notes: list[str]
) -> Detection:
    """How a detector with so many `columns` of logits is read."""
    names: object = request.labels
    with contextlib.suppress(InputError):  # of a file that nobody asked for: `_labels` says so
        names = names or settings.labels_of(path, model.metadata_props)[0]
        return guessed(columns, len(by_index(names, "")), settings.model_type(path), notes)
    return guessed(columns, 0, "", notes)


def _labels(
    model: ir.Model, path: Path, classes: int, request: ModelRequest, notes: list[str]
) -> tuple[str, ...]:
    """The names of the classes, or numbers where there are none, or those of another model.

    Raises InputError for names that skip an output.
    """
    if not classes:
        return ()
    if request.labels:
        return class_names(request.labels, None, classes, path.name)
    try:
        names, where = settings.labels_of(path, model.metadata_props)
    except InputError as error:  # of a file that nobody asked for
        notes.append(f"{error.what}: classes are called by number")
        return numbered(classes)
    named = by_index(names, where)
    count = len(named)
    if count != classes and list(named) == list(range(count)):
        if count:
            notes.append(f"{count} names of classes lie beside it, and it has {classes}: numbers")
        return numbered(classes)
    return class_names((), named, classes, where)

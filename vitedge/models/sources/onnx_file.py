"""FILE.onnx: anybody's image model."""

from __future__ import annotations

from pathlib import Path

from vitedge.graph.io import image_model, read
from vitedge.models.sources.base import ModelIdentity, ModelRequest, ReferenceModel, bundle_name
from vitedge.models.zoo import numbered


def load(path: Path, request: ModelRequest) -> ReferenceModel:
    """Read and check the file. Raises InputError."""
    file = read(path)
    preprocess, task, classes = image_model(
        file.model, path, request.own_preprocess(), request.task
    )
    identity = ModelIdentity(
        name=bundle_name(path.stem),
        source=path.name,
        weights_sha256=file.sha256,
        preprocess=preprocess,
        task=task,
        labels=numbered(classes),
        trained=True,
    )
    return ReferenceModel(identity, file.model)

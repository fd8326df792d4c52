"""FILE.onnx: anybody's image model."""

from __future__ import annotations

from pathlib import Path

from vitedge.core.bundle import sha256
from vitedge.graph.io import image_model, read
from vitedge.models.sources.base import ModelIdentity, ModelRequest, ReferenceModel, bundle_name
from vitedge.models.zoo import numbered


def load(path: Path, request: ModelRequest) -> ReferenceModel:
    """Read and check the file. Raises InputError."""
    model = read(path)
    preprocess, outputs = image_model(
        model, path, request.own_preprocess(), request.task, request.model_output
    )
    identity = ModelIdentity(
        name=bundle_name(path.stem),
        source=path.name,
        weights_sha256=sha256(path),
        preprocess=preprocess,
        task=outputs.task,
        labels=numbered(outputs.classes),
        trained=True,
        notes=outputs.notes,
    )
    return ReferenceModel(identity, model)

"""An ONNX model in the form that its export quantizes: what a target would do is planned on it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from vitedge.graph import external
from vitedge.graph.foreign.canonical import canonical, name_apart
from vitedge.graph.foreign.dimensions import bind_batch
from vitedge.graph.structure import sizes
from vitedge.models.sources import ReferenceModel
from vitedge.models.torch_graph import explained, quiet


def export_form(reference: ReferenceModel, opset: int) -> ir.Model:
    """The graph of an ONNX file in `opset`, at its own batch or 1.

    Of its large tensors only shapes count: their files are gone. Raises InputError and OSError.
    """
    assert isinstance(reference.content, ir.Model)
    model = reference.content.clone()  # its tensors are shared
    if not sizes(model.graph.inputs[0])[0]:
        bind_batch(model.graph, 1)
    name_apart(model.graph)
    image = model.graph.inputs[0]
    assert image.dtype is not None
    dims = sizes(image)
    pixels = np.random.default_rng(0).integers(0, 256, dims).astype(image.dtype.numpy())
    with TemporaryDirectory() as folder, explained(reference.identity, dims[0]), quiet():
        source, path = Path(folder) / "source.onnx", Path(folder) / "model.onnx"
        external.write(model, source)
        canonical(source, path, opset, pixels, reference.identity.source)
        return external.load(path)

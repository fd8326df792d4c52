"""A reference model into an FP32 ONNX file that takes uint8 images, with parity checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from vitedge.core.errors import InputError
from vitedge.core.numerics import EXPORT_PARITY, absolute_error, relative_error
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Batch
from vitedge.graph import fold, preprocess
from vitedge.graph.io import check_opset
from vitedge.graph.run import Fp32Graph, Runner, check_finite
from vitedge.models.sources import ModelIdentity, ReferenceModel
from vitedge.models.torch_graph import explained, name_nodes, quiet
from vitedge.models.torch_graph import program as torch_program


def export(model: ReferenceModel, folder: Path, batch: Batch, opset: int) -> Fp32Graph:
    """Write `folder/model.onnx`: `image` (B, H, W, 3) uint8 -> float32 logits or features.

    Its weights lie beside it as external data. Raises InputError when the graph's output
    differs from the source's by more than EXPORT_PARITY, or is NaN or infinite.
    """
    path = folder / "model.onnx"
    spec = model.identity.preprocess
    lower = _from_onnx if isinstance(model.content, ModelProto) else _from_torch
    rng = np.random.default_rng(0)
    count = 3 if batch == "dynamic" else batch
    images = rng.integers(0, 256, (count, spec.height, spec.width, 3), np.uint8)
    with explained(model.identity, batch):
        reference = lower(model, path, batch, opset)
        got, want = Runner(path)(images)[0], reference(images)
    _check_output(got, model.identity)
    check_finite(got, path, images)
    relative = relative_error(want, got)
    if not relative <= EXPORT_PARITY:
        raise InputError(
            f"{model.identity.name}: the exported graph differs from its source by "
            f"{relative:.1e} relative (limit {EXPORT_PARITY:.0e})",
            fix="the model computes something its export does not; report it with the model",
        )
    lead = None if batch == "dynamic" else batch
    graph = onnx.load(path, load_external_data=False).graph
    return Fp32Graph(
        path=path,
        input=TensorSpec(graph.input[0].name, (lead, spec.height, spec.width, 3), "uint8"),
        output=TensorSpec(graph.output[0].name, (lead, *got.shape[1:]), str(got.dtype)),
        max_abs_error=absolute_error(want, got),
        max_rel_error=relative,
    )


def _check_output(output: NDArray[Any], model: ModelIdentity) -> None:
    """Refuse what is not one float32 row for each image, with one column for each class."""
    classes = len(model.labels)
    if output.dtype != np.float32 or output.ndim < 2:
        raise InputError(
            f"{model.name} gives {output.dtype} {output.shape}, not float32 logits or features",
            fix="export it without what follows its logits",
        )
    if model.task != "features" and output.shape[1] != classes:
        raise InputError(
            f"{model.name} gives {output.shape[1]} logits for {classes} classes",
            fix="correct its labels, or the class count its graph states",
        )


def release(model: ReferenceModel) -> None:
    """Empty the weights of an exported torch model: hundreds of MB that are on disk by now.

    Dropping the module is not enough: onnxscript's rewrite rules remember the last graph.
    """
    if not isinstance(model.content, ModelProto):
        for parameter in model.content.parameters():
            parameter.data = parameter.data.new_empty(0)


def _from_torch(
    model: ReferenceModel, path: Path, batch: Batch, opset: int
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    import torch

    spec, module = model.identity.preprocess, model.content
    assert isinstance(module, torch.nn.Module)
    example = torch.zeros(2 if batch == "dynamic" else batch, 3, spec.height, spec.width)
    dynamic = ({0: torch.export.Dim("batch")},) if batch == "dynamic" else None
    with quiet():
        program = torch_program(module, example, opset, model.identity.task, dynamic)
        fold.constants(program.model)
    program.save(path, external_data=True)
    for value in program.model.graph.initializers.values():
        value.const_value = None  # views of the weights that would outlive `release`
    proto = onnx.load(path, load_external_data=False)
    name_nodes(proto)
    preprocess.prepend(proto, spec)
    onnx.save(proto, path)

    def reference(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = torch.from_numpy(preprocess.apply_numpy(images, spec))
            logits: NDArray[np.float32] = module(pixels).numpy()
        return logits

    return reference


def _from_onnx(
    model: ReferenceModel, path: Path, batch: Batch, opset: int
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    assert isinstance(model.content, ModelProto)
    proto = ModelProto()
    proto.CopyFrom(model.content)
    check_opset(proto, opset, model.identity.source)
    _set_batch(proto, batch, model.identity.source)
    _name_anonymous(proto)
    source = path.with_name("source.onnx")
    _save_external(proto, source)
    with quiet():
        proto = onnx.shape_inference.infer_shapes(fold.constants(proto))
    _name_anonymous(proto)
    embedded = proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    if not embedded:
        preprocess.prepend(proto, model.identity.preprocess)
    _save_external(proto, path)

    def reference(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = images if embedded else preprocess.apply_numpy(images, model.identity.preprocess)
        logits: NDArray[np.float32] = Runner(source)(pixels)[0]
        return logits

    return reference


def _name_anonymous(proto: ModelProto) -> None:
    """Give every node a name of its own, where a foreign exporter has not."""
    names: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)


def _set_batch(proto: ModelProto, batch: Batch, path: str) -> None:
    """Give a foreign model the batch asked for, where its graph allows it."""
    dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
    fixed = dim.dim_value
    if fixed and fixed != batch:
        raise InputError(
            f"{path} is fixed at batch {fixed}, not {batch}",
            fix=f"pass `batch={fixed}`, or export it with a dynamic batch",
        )
    if not fixed and batch != "dynamic":
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        del proto.graph.value_info[:]


def _save_external(proto: ModelProto, path: Path) -> None:
    copy = ModelProto()
    copy.CopyFrom(proto)  # saving with external data empties the tensors it moves out
    onnx.save(
        copy, path, save_as_external_data=True, location=path.name + ".data", size_threshold=1024
    )

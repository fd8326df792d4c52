"""ONNX files in and out: foreign ones are checked before any runtime sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.inliner
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    TensorProto,
    ValueInfoProto,
    numpy_helper,
)

from vitedge.core.errors import InputError, error_line
from vitedge.core.manifest import Tensor
from vitedge.core.spec import Preprocess, Task

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger"),
)
SINGLE_FILE_BYTES = 1536 * 2**20  # protobuf stops at 2 GiB


def read(path: Path) -> ModelProto:
    """Read a foreign ONNX file, its external data included.

    Raises InputError when it is no valid ONNX, or when external data lies outside its folder
    (CVE-2024-27318 and its kin: runtimes do not check).
    """
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}", fix="check the path")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's decode error, or an OS error
        raise InputError(f"{path} is not an ONNX file: {error}", fix="export it again") from error
    for tensor in _tensors(model.graph):
        _check_external(tensor, path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, or an OS error on a missing data file
        reason = error_line(error)
        raise InputError(f"{path} is not a valid model: {reason}", fix="export it again") from error
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise InputError(
                f"{path}: tensor '{tensor.name}' holds NaN or infinity",
                fix="these weights are damaged: export it again from sound ones",
            )
    return model


def read_named(path: Path) -> ModelProto:
    """Read a foreign ONNX file to look at: its functions inlined, every node with a name.

    Raises InputError as `read` does.
    """
    model = read(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for node in model.graph.node:
        if not node.name and node.output:
            node.name = node.output[0]
    return model


def inputs_of(path: Path) -> tuple[Tensor, ...]:
    """The inputs of an ONNX file; a first dimension left open is the batch, any other 0.

    Raises InputError as `read` does.
    """
    model = read_named(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    return tuple(_input(value) for value in model.graph.input if value.name not in stored)


def _input(value: ValueInfoProto) -> Tensor:
    tensor_type = value.type.tensor_type
    sizes: list[int | Literal["batch"]] = [dim.dim_value for dim in tensor_type.shape.dim]
    if sizes[:1] == [0]:
        sizes[0] = "batch"
    kind = TensorProto.DataType.Name(tensor_type.elem_type).lower()
    return Tensor(name=value.name, shape=tuple(sizes), dtype=kind, layout="")


def write(model: ModelProto, path: Path) -> None:
    """Write `model` as one file, or with `<name>.data` beside it where protobuf needs that."""
    if model.ByteSize() < SINGLE_FILE_BYTES:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=path.name + ".data")


def _tensors(graph: GraphProto) -> list[TensorProto]:
    """Every tensor a graph stores, subgraphs and attributes included."""
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                tensors.extend(_tensors(attribute.g))
    return tensors


def _check_external(tensor: TensorProto, path: Path) -> None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    location = next((e.value for e in tensor.external_data if e.key == "location"), "")
    folder = path.parent.resolve()
    data = (folder / location).resolve()
    if not location or Path(location).is_absolute() or folder not in data.parents:
        raise InputError(
            f"{path}: tensor '{tensor.name}' keeps its data at '{location}', "
            "outside the model's folder",
            fix="do not run this file; if you trust it, save it again with its data beside it",
        )


def image_model(
    model: ModelProto, path: Path, preprocess: Preprocess | None, task: Task | None
) -> tuple[Preprocess, Task, int]:
    """The preprocessing, the task and the number of classes (0 of features) of a foreign model.

    Its one input is (B, 3, H, W) float32, which needs `preprocess`, or (B, H, W, 3) uint8. Its
    first output is taken as logits (B, classes) or (B, classes, h, w) unless `task` says that it
    is features. Raises InputError for anything else. Stored tensors listed as inputs, and further
    outputs, are dropped in place.
    """
    if any(node.op_type in _QUANTIZED for node in model.graph.node):
        raise InputError(f"{path} is quantized already", fix="give the FP32 model")
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    del model.graph.output[1:]
    task, classes = _task(model, path, task)
    tensor = inputs[0].type.tensor_type if len(inputs) == 1 else None
    dims = [d.dim_value for d in tensor.shape.dim] if tensor else []
    kind = tensor.elem_type if tensor else TensorProto.UNDEFINED
    if kind == TensorProto.UINT8 and len(dims) == 4 and dims[3] == 3 and dims[1] and dims[2]:
        return preprocess or Preprocess(height=dims[1], width=dims[2]), task, classes
    if kind != TensorProto.FLOAT or len(dims) != 4 or dims[1] != 3 or not (dims[2] and dims[3]):
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(
            f"{path} has no single image input (inputs: {names})",
            fix="export it with one input, height and width fixed: "
            "(B, 3, H, W) float32 or (B, H, W, 3) uint8",
        )
    if preprocess is None:
        raise InputError(
            f"{path} takes normalised float pixels, and does not say how they are made",
            fix="pass `preprocess=FILE.toml` with height, width, mean and std "
            "(see 'Preprocessing' in the README)",
        )
    if (preprocess.height, preprocess.width) != (dims[2], dims[3]):
        raise InputError(
            f"{path} takes {dims[2]}×{dims[3]} pixels, but `preprocess` says "
            f"{preprocess.height}×{preprocess.width}",
            fix="set height and width to the model's",
        )
    return preprocess, task, classes


def _task(model: ModelProto, path: Path, requested: Task | None) -> tuple[Task, int]:
    """What the first output is, by its rank, and its number of classes."""
    if not model.graph.output:
        raise InputError(f"{path} has no output", fix="export it again")
    kind = model.graph.output[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        raise InputError(
            f"{path}: its first output is {TensorProto.DataType.Name(kind)}, not FLOAT",
            fix="export the model in float32, with its logits as the first output",
        )
    dims = model.graph.output[0].type.tensor_type.shape.dim
    by_rank: dict[int, Task] = {2: "classification", 4: "segmentation"}
    task = requested or by_rank.get(len(dims))
    if task == "features":
        return task, 0
    if task is None or by_rank.get(len(dims)) != task or not dims[1].dim_value:
        shape = ", ".join(d.dim_param or str(d.dim_value or "?") for d in dims)
        raise InputError(
            f"{path}: its first output, ({shape}), is neither (B, classes) logits "
            "nor (B, classes, h, w)",
            fix="export it with its head and a fixed number of classes, or pass `task='features'`",
        )
    return task, dims[1].dim_value

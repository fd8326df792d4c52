"""ONNX files in and out: foreign ones are checked before any runtime sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, TensorProto
from onnx_ir.passes.common import InlinePass

from vitedge.core import onnx_outline
from vitedge.core.errors import InputError, error_line
from vitedge.core.manifest import Tensor
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Preprocess, Task
from vitedge.graph import external, limits
from vitedge.graph.data_files import DataFolder, OpenFile, StoredTensor
from vitedge.graph.external import INLINE_BYTES
from vitedge.graph.outputs import Outputs, choose
from vitedge.graph.structure import sizes

if TYPE_CHECKING:
    from hashlib import _Hash

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger"),
)
PROTO_BYTES = 2**31
"""Where protobuf ends."""


@dataclass(frozen=True)
class OnnxFile:
    """A foreign ONNX file that has been checked."""

    model: ir.Model
    """Every node has a name. What data files hold is read where it is used; they stay open."""
    sha256: str
    """Of the file, followed by every tensor that it keeps in data files, in its order."""


def read(path: Path) -> OnnxFile:
    """Read a foreign ONNX file; its data files may be larger than memory.

    Raises InputError when it is no valid ONNX, when external data is missing, cut short or outside
    its folder (CVE-2024-27318 and its kin: runtimes do not check), or a weight is not finite.
    """
    file = _opened(path)
    onnx_outline.check_content(file.content, str(path))
    digest = hashlib.sha256()
    for block in file.blocks(0, file.size_bytes):
        digest.update(block)
    try:
        proto = ModelProto.FromString(file.read(0, file.size_bytes))
    except Exception as error:  # protobuf's decode error
        raise InputError(f"{path} is not an ONNX file: {error}", fix="export it again") from error
    if proto.graph.sparse_initializer:
        name = proto.graph.sparse_initializer[0].values.name
        raise InputError(f"{path} keeps '{name}' as a sparse tensor", fix="save it with dense ones")
    if not proto.graph.output:
        raise InputError(f"{path} gives no output", fix="export it again")
    folder = DataFolder(path)
    limits.check_opset(proto, path)
    limits.check_loops(proto, path)
    try:
        onnx.checker.check_model(_outline(proto))
        for tensor in _tensors([*proto.graph.node, *proto.functions]):
            if tensor.data_location == TensorProto.EXTERNAL:  # a node's own: a shape, a mask
                data = folder.open(tensor).tobytes()
                digest.update(data)
                _embed(tensor, data)
            if _has_nan(tensor):  # infinity masks
                raise _damaged(path, tensor.name or "a constant", "NaN")
        outside = [t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL]
        stored = {tensor.name: folder.open(tensor) for tensor in outside}
        _name_nodes(proto)
        model = ir.from_proto(proto)
        for name, value in model.graph.initializers.items():
            value.const_value = stored.get(name, value.const_value)
            if not _is_finite(value.const_value, digest):
                raise _damaged(path, name, "NaN or infinity")
            if name in stored and stored[name].nbytes < INLINE_BYTES:  # there readers want shapes
                value.const_value = ir.tensor(stored[name].numpy().copy(), name=name)
        limits.check_sizes(model, path)
    except InputError:
        raise
    except Exception as error:  # ValidationError, or what onnx_ir raises
        reason = error_line(error)
        raise InputError(f"{path} is not a valid model: {reason}", fix="export it again") from error
    return OnnxFile(model, digest.hexdigest())


def read_inlined(path: Path) -> ir.Model:
    """Read a foreign ONNX file to look at, its functions inlined. Raises as `read` does."""
    model = read(path).model
    InlinePass()(model)
    return model


def inputs_of(path: Path) -> tuple[Tensor, ...]:
    """The inputs of an ONNX file; a first dimension left open is the batch, any other 0.

    Raises InputError as `read` does.
    """
    graph = read(path).model.graph
    return tuple(_input(value) for value in graph.inputs if value.const_value is None)


def _input(value: ir.Value) -> Tensor:
    shape: list[int | Literal["batch"]] = list(sizes(value))
    if shape[:1] == [0]:
        shape[0] = "batch"
    kind = (value.dtype or ir.DataType.UNDEFINED).name.lower()
    return Tensor(name=value.name or "", shape=tuple(shape), dtype=kind, layout="")


def write(model: ModelProto, path: Path) -> None:
    """Write `model` as one file, or with `<name>.data` beside it where protobuf needs that."""
    graph = ir.from_proto(model)
    if external.fits_one_file(graph):
        onnx.save(model, path)
    else:
        external.write(graph, path)


def _opened(path: Path) -> OpenFile:
    if not path.is_file():
        raise InputError(f"no ONNX file at {path}", fix="check the path")
    try:
        file = OpenFile(path)
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{path} cannot be read: {reason}", fix="check its permissions") from error
    if file.size_bytes >= PROTO_BYTES:
        raise InputError(
            f"{path} has {file.size_bytes / 1e9:.1f} GB, and an ONNX file ends at 2.1",
            fix="export it again with its weights in a data file beside it",
        )
    return file


def _tensors(messages: Iterable[Any]) -> Iterator[TensorProto]:
    """Every tensor in `messages`, however deep it hides."""
    for message in messages:
        if isinstance(message, TensorProto):
            yield message
            continue
        for field, content in message.ListFields():
            if field.message_type is not None:
                yield from _tensors([content] if hasattr(content, "ListFields") else content)


def _outline(proto: ModelProto) -> ModelProto:
    """`proto` without its data, for onnx's checker: that follows no link, and ends at 2 GiB.

    Raises ValueError where a tensor has more or less of it than its shape takes.
    """
    outline = ModelProto()
    outline.CopyFrom(proto)
    for tensor in _tensors([outline]):
        if min(tensor.dims, default=0) < 0:
            raise ValueError(f"tensor '{tensor.name}' has the shape {list(tensor.dims)}")
        stored = len(tensor.raw_data)
        if stored and stored != (takes := ir.tensor(tensor).nbytes):
            raise ValueError(f"tensor '{tensor.name}' takes {takes} bytes, and has {stored}")
        if stored <= INLINE_BYTES and tensor.data_location != TensorProto.EXTERNAL:
            continue
        for field in ("raw_data", "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.dims[:] = [0] * max(1, len(tensor.dims))  # complete without data
    return outline


def _embed(tensor: TensorProto, data: bytes) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = data


def _has_nan(tensor: TensorProto) -> bool:
    """Whether a tensor of a node's holds a NaN."""
    own = ir.tensor(tensor)
    return own.dtype in _FLOATS and bool(np.isnan(own.numpy()).any())


def _damaged(path: Path, tensor: str, what: str) -> InputError:
    return InputError(
        f"{path}: tensor '{tensor}' holds {what}",
        fix="these weights are damaged: export it again from sound ones",
    )


def _name_nodes(proto: ModelProto) -> None:
    """Call nodes without a name after what they give."""
    for node in proto.graph.node:
        if not node.name and node.output:
            node.name = node.output[0]


def _is_finite(tensor: ir.TensorProtocol | None, digest: _Hash) -> bool:
    """Whether no value of a float tensor is NaN or infinite; adds what data files hold to `digest`.

    One pass, a few megabytes at a time.
    """
    assert tensor is not None
    checked = tensor.dtype in _FLOATS
    if not isinstance(tensor, StoredTensor):
        return not checked or bool(np.isfinite(tensor.numpy()).all())
    finite = True
    for block in tensor.blocks():
        digest.update(block)
        if checked:
            finite &= bool(np.isfinite(np.frombuffer(block, tensor.kind)).all())
    return finite


def image_model(
    model: ir.Model,
    path: Path,
    preprocess: Preprocess | None,
    task: Task | None,
    requested: Sequence[str] = (),
) -> tuple[Preprocess, Outputs]:
    """The preprocessing and the outputs of a foreign model, as `outputs.choose` says.

    Its one input is (B, 3, H, W) float32, which needs `preprocess`, or (B, H, W, 3) uint8. Raises
    InputError for anything else. Stored tensors listed as inputs, and outputs that are not kept,
    are dropped in place; the main output becomes the first.
    """
    graph = model.graph
    if any(node.op_type in _QUANTIZED for node in graph):
        raise InputError(f"{path} is quantized already", fix="give the FP32 model")
    inputs = [value for value in graph.inputs if value.const_value is None]
    graph.inputs[:] = inputs
    outputs = _keep_outputs(graph, path, task, requested)
    image = inputs[0] if len(inputs) == 1 else None
    dims = sizes(image)
    kind = image.dtype if image is not None else None
    if kind == ir.DataType.UINT8 and len(dims) == 4 and dims[3] == 3 and dims[1] and dims[2]:
        return preprocess or Preprocess(height=dims[1], width=dims[2]), outputs
    if kind != ir.DataType.FLOAT or len(dims) != 4 or dims[1] != 3 or not (dims[2] and dims[3]):
        names = ", ".join(value.name or "" for value in inputs) or "none"
        raise InputError(
            f"{path} has no single image input (inputs: {names})",
            fix="export it with one input: (B, 3, H, W) or (B, H, W, 3) float32, or "
            "(B, H, W, 3) uint8",
        )
    if preprocess is None:
        raise InputError(
            f"{path} takes normalised float pixels, and does not say how they are made",
            fix="pass `preprocess` with a .toml or .json of height, width, mean and std "
            "(see 'Preprocessing' in the README)",
        )
    if (preprocess.height, preprocess.width) != (dims[2], dims[3]):
        raise InputError(
            f"{path} takes {dims[2]}×{dims[3]} pixels, but `preprocess` says "
            f"{preprocess.height}×{preprocess.width}",
            fix="set height and width to the model's",
        )
    return preprocess, outputs


def _keep_outputs(
    graph: ir.Graph, path: Path, task: Task | None, requested: Sequence[str]
) -> Outputs:
    """Choose a model's outputs; the others are dropped in place, and the main one comes first."""
    values = {value.name or "": value for value in graph.outputs}
    specs = [_output(name, value) for name, value in values.items()]
    outputs = choose(specs, requested, task, str(path))
    graph.outputs[:] = [values[name] for name in outputs.names]
    return outputs


def _output(name: str, value: ir.Value) -> TensorSpec:
    kind = (value.dtype or ir.DataType.UNDEFINED).name.lower()
    shape = tuple(size or None for size in sizes(value))
    return TensorSpec(name, shape, {"float": "float32", "double": "float64"}.get(kind, kind))

"""Graphs that are rewritten: their new constants, large ones in a data file beside them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from vitedge.graph.data_files import OpenFile, StoredTensor

SINGLE_FILE_BYTES = 1536 * 2**20
"""Protobuf stops at 2 GiB."""
INLINE_BYTES = 1024
"""Where readers look for shapes and axes: in the graph."""


def constant(graph: ir.Graph, name: str, values: NDArray[Any] | ir.TensorProtocol) -> ir.Value:
    """Store `values` in `graph` as the constant `name`."""
    tensor = ir.tensor(values)
    shape, kind = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value


def changed(
    tensor: ir.TensorProtocol, dtype: ir.DataType, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> ir.LazyTensor:
    """What `change` makes of the values of `tensor`, as `dtype`, made only when it is written."""
    return ir.LazyTensor(
        lambda: ir.tensor(change(tensor.numpy()).astype(dtype.numpy())),
        dtype,
        ir.Shape(tensor.shape.numpy()),
    )


def write(model: ir.Model, path: Path, inline_bytes: int = INLINE_BYTES) -> None:
    """Write `model` to `path`; external data in that folder is shared.

    What lies elsewhere, and new constants of `inline_bytes` and more, go into `<name>.data`. What
    nobody reads is dropped.
    """
    moved: dict[ir.Value, ir.TensorProtocol] = {}
    data = path.with_name(f"{path.name}.data")
    lie_there = set()
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if not (value.uses() or value.is_graph_output()):
            del model.graph.initializers[name]
        elif isinstance(tensor, ir.ExternalTensor):
            if Path(tensor.path) == data:
                lie_there.add(value)
            if Path(tensor.base_dir) != path.parent or value in lie_there:
                moved[value] = tensor
        elif tensor is not None and tensor.dtype != ir.DataType.STRING:
            new = isinstance(tensor, ir.Tensor | ir.LazyTensor)
            if tensor.nbytes >= (inline_bytes if new else INLINE_BYTES):
                moved[value] = tensor
    if moved.keys() - lie_there:  # else the file stays as it is
        _move(moved, data)
    ir.save(model, path)


def _move(moved: Mapping[ir.Value, ir.TensorProtocol], data: Path) -> None:
    """Write the tensors of `moved` to `data`, and let them lie there."""
    try:
        stored = ir.external_data.convert_tensors_to_external(
            list(moved.values()), data.parent, data.name
        )
    except OSError as error:
        if error.errno is None:  # numpy's of a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    for value, external in zip(moved, stored, strict=True):
        value.const_value = external


def load(path: Path) -> ir.Model:
    """Read an ONNX file of ours, its external data lazily."""
    model = ir.load(path)
    share_files(model)
    return model


def share_files(model: ir.Model) -> None:
    """Open each data file of `model` once: onnx_ir opens one for each tensor, to the limit of
    open files."""
    files: dict[str, OpenFile] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, StoredTensor):
            if tensor.path not in files:
                files[tensor.path] = OpenFile(Path(tensor.path))
            value.const_value = StoredTensor(files[tensor.path], tensor)


def pack(source: Path, path: Path) -> None:
    """Write the ONNX file `source` to `path`, weights inside, or in `<name>.data` beside it where
    protobuf needs that."""
    model = load(source)
    if fits_one_file(model):
        onnx.save(onnx.load(source), path)
    else:
        write(model, path)


def fits_one_file(model: ir.Model) -> bool:
    """Whether protobuf takes `model` with its weights inside."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    numbers = (t for t in tensors if t is not None and t.dtype != ir.DataType.STRING)
    return sum(tensor.nbytes for tensor in numbers) < SINGLE_FILE_BYTES


def with_constants(source: Path, values: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the ONNX file `source` to `path`, beside it, with other values of some constants.

    The external data of `source` is shared.
    """
    model = load(source)
    for name, value in values.items():
        model.graph.initializers[name].const_value = ir.tensor(value, name=name)
    write(model, path)

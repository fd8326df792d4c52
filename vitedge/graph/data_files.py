"""The external data of somebody's ONNX file: found in its folder, opened once, never read whole.

What onnx and the runtimes check differs from each other, and some follow any path.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto

from vitedge.core.errors import InputError

BLOCK_BYTES = 2**24


class OpenFile:
    """A regular file, opened once: whatever its name leads to later, this is what is read."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, also where `path` is no regular file."""
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO waits
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            self.links, self.size_bytes = status.st_nlink, status.st_size
            empty = not self.size_bytes
            self._map = b"" if empty else mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)

    @property
    def content(self) -> bytes | mmap.mmap:
        """All of it, in memory only where it is looked at."""
        return self._map

    def array(self, kind: np.dtype[Any], offset: int, count: int) -> NDArray[Any]:
        """`count` numbers from byte `offset` on, in memory only where they are looked at."""
        return np.frombuffer(self._map, kind, count, offset)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        return b"".join(self.blocks(offset, length))

    def blocks(self, offset: int, length: int) -> Iterator[memoryview]:
        """`length` bytes from `offset` on, a few at a time: those that were read leave memory."""
        for start in range(offset, offset + length, BLOCK_BYTES):
            size = min(BLOCK_BYTES, offset + length - start)
            yield memoryview(self._map)[start : start + size]
            if isinstance(self._map, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                page = start - start % mmap.PAGESIZE
                self._map.madvise(mmap.MADV_DONTNEED, page, start + size - page)


class StoredTensor(ir.ExternalTensor):
    """A tensor in an open file. `path` says where that was, not where it is read."""

    __slots__ = ("_file",)

    def __init__(self, file: OpenFile, tensor: ir.ExternalTensor) -> None:
        """`tensor`, whose file is open as `file`."""
        super().__init__(
            tensor.location,
            tensor.offset or 0,
            None,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            base_dir=tensor.base_dir,
        )
        self._file = file

    @property
    def length(self) -> int:
        return self.nbytes

    @property
    def kind(self) -> np.dtype[Any]:
        """Of its numbers in the file."""
        kind: np.dtype[Any] = np.dtype(self.dtype.numpy()).newbyteorder("<")
        return kind

    def blocks(self) -> Iterator[memoryview]:
        """Its bytes, a few at a time."""
        return self._file.blocks(self.offset or 0, self.nbytes)

    def numpy(self) -> NDArray[Any]:
        if self.dtype.bitwidth < 8:  # packed
            proto = TensorProto(
                dims=self.shape.numpy(), data_type=self.dtype.value, raw_data=self.tobytes()
            )
            return ir.tensor(proto).numpy()
        values = self._file.array(self.kind, self.offset or 0, self.size)
        return values.reshape(self.shape.numpy())

    def __array__(self, dtype: Any = None) -> NDArray[Any]:
        return self.numpy().__array__(dtype)

    def tobytes(self) -> bytes:
        return self._file.read(self.offset or 0, self.nbytes)

    def tofile(self, file: BinaryIO) -> None:
        for block in self.blocks():
            file.write(block)


class DataFolder:
    """The data files of one ONNX file, each opened at its first tensor."""

    def __init__(self, model: Path) -> None:
        """`model` is as the user named it: its data lie beside that name, or beside the file
        that it is a link to."""
        self._model = model
        self._folders = tuple(dict.fromkeys((model.parent.resolve(), model.resolve().parent)))
        self._files: dict[str, tuple[OpenFile, Path]] = {}

    def open(self, tensor: TensorProto) -> StoredTensor:
        """The external `tensor`, in its open file. Raises InputError where it is not all there."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in self._files:
            path = self._path(tensor.name, location)
            self._files[location] = self._opened(path, tensor.name, location), path
        file, path = self._files[location]
        offset = self._bytes(tensor.name, entries, "offset") or 0
        length = self._bytes(tensor.name, entries, "length")
        kind, shape = ir.DataType(tensor.data_type), ir.Shape(tensor.dims)
        stored = StoredTensor(
            file,
            ir.ExternalTensor(
                path.name, offset, None, kind, shape=shape, name=tensor.name, base_dir=path.parent
            ),
        )
        if length is None:  # to the end of the file, of which it is the beginning
            length = stored.nbytes
        if length != stored.nbytes:
            raise self._invalid(
                f"tensor '{tensor.name}' takes {stored.nbytes} bytes, and has {length} in "
                f"'{location}'",
                fix="the file is cut short, or of another model: copy or export both again",
            )
        if offset + length > file.size_bytes:
            raise self._invalid(
                f"tensor '{tensor.name}' is at bytes {offset} to {offset + length} of "
                f"'{location}', which has {file.size_bytes}",
                fix="the file is cut short, or of another model: copy or export both again",
            )
        return stored

    def _path(self, tensor: str, location: str) -> Path:
        """Where `location` leads. Raises InputError where that is not beside the model."""
        named = PurePosixPath(location)
        windows = PureWindowsPath(location)
        if not location or windows.anchor or ".." in (*named.parts, *windows.parts):
            raise InputError(
                f"{self._model}: tensor '{tensor}' keeps its data at '{location}', "
                "outside the model's folder",
                fix="do not run this file; if you trust it, save it again with its data beside it",
            )
        for folder in self._folders:
            path = folder / named
            if not path.exists():
                continue
            real = path.resolve()
            if not any(parent in real.parents for parent in self._folders):
                raise InputError(
                    f"{self._model}: tensor '{tensor}' keeps its data at '{location}', a link to "
                    f"{real}, outside the model's folder",
                    fix="do not run this file; if you trust it, put the file itself there, "
                    "in place of the link",
                )
            return real
        beside = self._model.parent / named
        dead = f": {beside} is a link to nothing" if beside.is_symlink() else ""
        raise InputError(
            f"{self._model}: its data file '{location}' is missing{dead}",
            fix=f"copy it beside: to {beside}",
        )

    def _opened(self, path: Path, tensor: str, location: str) -> OpenFile:
        try:
            file = OpenFile(path)
        except OSError as error:
            raise InputError(
                f"{self._model}: its data file '{location}' cannot be read: {error.strerror}",
                fix="put the file itself there, or check its permissions",
            ) from error
        if file.links > 1:  # of a file that lies anywhere
            raise InputError(
                f"{self._model}: tensor '{tensor}' keeps its data at '{location}', a hard link: "
                f"the file has {file.links} names",
                fix="do not run this file; if you trust it, put a copy there, in place of the link",
            )
        return file

    def _bytes(self, tensor: str, entries: dict[str, str], key: str) -> int | None:
        text = entries.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise self._invalid(
                f"tensor '{tensor}' has {key} {text!r} in its data file", fix="export it again"
            )
        return int(text)

    def _invalid(self, reason: str, fix: str) -> InputError:
        return InputError(f"{self._model} is not a valid model: {reason}", fix=fix)

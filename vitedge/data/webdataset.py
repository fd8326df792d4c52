"""WebDataset: tar files in which 000001.jpg lies beside 000001.cls, its class.

Their headers are read once, and an image by its place in the file: no index beside them, nothing
unpacked. The standard library's tarfile reads them; the package of the name would add pickles.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from vitedge.core.bounded import open_regular
from vitedge.core.errors import InputError, error_line
from vitedge.core.spec import Preprocess
from vitedge.data.decode import SUFFIXES, Skip
from vitedge.data.imageset import UNLABELLED, ImageSet
from vitedge.data.records import IMAGE_BYTES, Records, open_records
from vitedge.data.role import Role

SUFFIX = ".tar"
FILES = 100_000
"""Of a set, at most."""
_HEADER_BYTES = 2**20
_CLASS_BYTES = 32
_UNREADABLE = (
    *(tarfile.TarError, OSError, ValueError, EOFError),
    *(IndexError, OverflowError, RecursionError),  # what tarfile raises at headers that lie
)
_BRACES = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_FIX = "pack it with 'tar', uncompressed: NAME.jpg, and NAME.cls with its class index"


def tar_files(path: str) -> list[str]:
    """Those that `path` means: a file, a folder of them, or `shard-{000..015}.tar`."""
    if path.lower().endswith(SUFFIX) and (braces := _BRACES.search(path)):
        low, high = int(braces[1]), int(braces[2])
        if not 0 <= high - low < FILES:
            raise InputError(f"'{path}' means no files, or too many", fix="give {000..015}")
        numbers = (f"{number:0{len(braces[1])}}" for number in range(low, high + 1))
        return [path[: braces.start()] + number + path[braces.end() :] for number in numbers]
    if os.path.isdir(path):
        return sorted(str(file) for file in Path(path).glob(f"*{SUFFIX}"))[:FILES]
    return [path] if path.lower().endswith(SUFFIX) else []


def open_tars(
    path: str, files: Sequence[str], role: Role, preprocess: Preprocess, labels: Sequence[str]
) -> ImageSet:
    """The images of tar `files`. Raises InputError for what is no tar, or does not fit."""
    file_of, sizes = array("I"), array("Q")
    offsets, classes = array("Q"), array("q")
    for number, file in enumerate(files):
        for offset, size, label in _samples(file):
            file_of.append(number)
            offsets.append(offset)
            sizes.append(size)
            classes.append(label)

    def read(index: int) -> bytes:
        size = sizes[index]
        if size > IMAGE_BYTES:
            raise Skip("too large")
        with open_regular(Path(files[file_of[index]])) as stream:
            stream.seek(offsets[index])
            return stream.read(size)

    def digest() -> str:
        content = hashlib.sha256()
        for file in files:
            content.update(f"{os.path.basename(file)} {os.path.getsize(file)}\n".encode())
        for numbers in (file_of, offsets, sizes):
            content.update(numbers)
        return content.hexdigest()

    records = Records(path, classes, (), read, digest, "NAME.jpg a NAME.cls beside it")
    return open_records(records, role, preprocess, labels)


def _samples(path: str) -> Iterator[tuple[int, int, int]]:
    """Where each image of a tar begins, its bytes, and its class. Raises InputError."""
    with open_regular(Path(path)) as file:
        end = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=_Careful(file), mode="r:") as archive:
                yield from _grouped(archive, file, end)
        except _UNREADABLE as error:
            raise InputError(f"cannot read {path}: {error_line(error)}", fix=_FIX) from error


def _grouped(archive: tarfile.TarFile, file: IO[bytes], end: int) -> Iterator[tuple[int, int, int]]:
    """Members that follow each other and share a name up to its first dot are one sample."""
    key, image, label = "", (0, 0), UNLABELLED
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        if member.size < 0:
            raise ValueError("a member of it has less than no bytes")
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not member.isreg() or member.issparse() or name.startswith("."):
            continue
        if member.offset_data + member.size > end:
            raise ValueError("it is cut short")
        if f"{folder}/{stem}" != key:
            if image[1]:
                yield *image, label
            key, image, label = f"{folder}/{stem}", (0, 0), UNLABELLED
        if f".{suffix.lower()}".endswith(SUFFIXES):
            image = member.offset_data, member.size
        elif suffix == "cls":
            label = _class(file, member)
    if image[1]:
        yield *image, label


def _class(file: IO[bytes], member: tarfile.TarInfo) -> int:
    place = file.tell()
    file.seek(member.offset_data)
    text = file.read(min(member.size, _CLASS_BYTES + 1)).strip()
    file.seek(place)
    if len(text) > _CLASS_BYTES or not re.fullmatch(rb"\d{1,9}", text):
        raise ValueError(f"{member.name!r:.100} holds no class index")
    return int(text)


class _Careful(io.RawIOBase):
    """A file of which no header is longer than a header is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise ValueError("a header of it is too long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

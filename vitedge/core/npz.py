"""Arrays of an .npz file that may come from a stranger: no objects, no bomb.

Memory is at most a stated multiple of the file.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.bounded import AGAIN, open_regular
from vitedge.core.errors import InputError, error_line
from vitedge.core.zip_file import open_zip

EXPANSION = 128
"""How many times its file's size the arrays may be, beside `EXPANSION_FREE`: deflate reaches 1,032
on zeros, photographs and masks 1 to 50."""
EXPANSION_FREE = 64 * 2**20
ARRAYS = 4096
"""Members, at most."""


@contextmanager
def arrays(path: Path, fix: str = AGAIN) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of the .npz file `path`, read when they are asked for; no objects.

    Raises InputError for a file whose arrays are not what their sizes say, or far larger than it;
    so does asking for one that is damaged or not there.
    """
    with open_regular(path) as file:
        try:
            with open_zip(file) as archive:
                _check(path, archive, os.fstat(file.fileno()).st_size, fix)
            file.seek(0)
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it begins as an array")
        except InputError:
            raise
        except Exception as error:  # zip, zlib and npy readers raise anything
            what = f"cannot read {path}: no .npz file ({error_line(error)})"
            raise InputError(what, fix=fix) from error
        with stored:
            yield _Arrays(path, stored, fix)


class _Arrays(Mapping[str, NDArray[Any]]):
    """Arrays of an open file."""

    def __init__(self, path: Path, stored: Mapping[str, NDArray[Any]], fix: str) -> None:
        self._path, self._stored, self._fix = path, stored, fix

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._stored:
            raise InputError(f"{self._path} has no array {name!r:.200}", fix=self._fix)
        try:
            return self._stored[name]
        except Exception as error:  # zip, zlib and npy readers raise anything, and MemoryError
            what = f"cannot read {self._path}: {name!r:.200}: {error_line(error)}"
            raise InputError(what, fix=self._fix) from error


def _check(path: Path, archive: zipfile.ZipFile, size_bytes: int, fix: str) -> None:
    """Raise InputError unless every member is an array of the size it says, and all fit."""
    members = archive.infolist()
    declared = sum(member.file_size for member in members)
    if len(members) > ARRAYS or declared > EXPANSION * size_bytes + EXPANSION_FREE:
        raise InputError(
            f"{path} says of itself that its {len(members)} arrays are {declared / 2**20:.0f} MiB, "
            f"of a file of {size_bytes / 2**20:.1f}: that is not read",
            fix="save it with less compression; or is it the right file?",
        )
    for member in members:
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
            expected = stream.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or expected != member.file_size:
            what = "objects" if dtype.hasobject else f"{shape} of {dtype}, and has another size"
            raise InputError(f"{path}: {member.filename!r} says it holds {what}", fix=fix)

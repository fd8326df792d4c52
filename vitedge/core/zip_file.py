"""Zips that may come from a stranger (.npz, torch's checkpoints): a bounded list of members."""

from __future__ import annotations

import os
import zipfile
from typing import IO

DIRECTORY_BYTES = 32 * 2**20
"""The list of a zip's members: 46 bytes and a name for each, 20 times that in memory."""


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Read the list of members of an open `file`. Raises what zipfile does, and ValueError."""
    return zipfile.ZipFile(_Bounded(file))


class _Bounded:
    """A file of which zipfile reads so much at once, at most: the list is read in one go."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read, self._size_bytes = file.read, os.fstat(file.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        left = self._size_bytes - self.tell()
        wanted = left if count < 0 else min(left, count)
        if wanted > DIRECTORY_BYTES:
            raise ValueError("its list of members is too long")
        return self._read(max(0, wanted))

"""The one reader of files that may come from strangers: no device, and nothing endless.

Sizes are looked at before a byte is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from vitedge.core.errors import InputError

TEXT_BYTES = 16 * 2**20
"""Of a JSON document or labels, at most: a short line or value takes 20 to 40 times its text."""
AGAIN = "give the file itself, as it was written"


def open_regular(path: Path, *, follow: bool = True, fix: str = "check the path") -> IO[bytes]:
    """Open a regular file to read, never a FIFO or a device; a link only where `follow` says so.

    Raises InputError.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    try:
        if not follow and path.is_symlink():  # where the system has no O_NOFOLLOW
            raise InputError(f"{path} is a link", fix=AGAIN)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}: {why}", fix=fix) from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise InputError(f"cannot read {path}: it is no regular file", fix=AGAIN)


def read(
    path: Path,
    limit_bytes: int = TEXT_BYTES,
    *,
    follow: bool = True,
    fix: str = "check the path",
) -> bytes:
    """All of a file of at most `limit_bytes`. Raises InputError, as `open_regular` does."""
    with open_regular(path, follow=follow, fix=fix) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit_bytes + 1) if size <= limit_bytes else b""
    if size > limit_bytes or len(content) > limit_bytes:  # it may have grown
        raise InputError(
            f"{path} has {size / 2**20:.0f} MiB, and {limit_bytes / 2**20:.0f} are read at most",
            fix="is it the right file?",
        )
    return content


def read_lines(path: Path, *, fix: str) -> list[str]:
    """The lines of a text in UTF-8, with a byte order mark or without. Raises InputError."""
    try:
        return read(path, fix=fix).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}", fix=fix) from error

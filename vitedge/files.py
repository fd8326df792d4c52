"""Files a user asks for: refused before any work where they cannot be written, then whole or not.

An artifact's own files have their rules in `artifact`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vitedge.errors import InputError


def check_writable(path: Path, option: str) -> None:
    """Refuse, before any work, a `path` that `option` could not be written to."""
    fix = "give a file in a folder that exists and is yours"
    if path.is_dir() or (path.exists() and not path.is_file()):  # a device would be replaced
        raise InputError(f"cannot write {option} {path}: it is no regular file", fix=fix)
    try:
        with tempfile.TemporaryFile(dir=path.parent):  # rights alone say too little: /proc, root
            pass
    except OSError as error:
        raise InputError(f"cannot write {option} {path}: {error.strerror}", fix=fix) from error


def write(path: Path, text: str) -> None:
    """Write `text` as UTF-8, in one rename; a link stays one. Raises InputError."""
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", fix="free some space") from error
    finally:
        temporary.unlink(missing_ok=True)

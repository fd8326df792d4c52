"""Single files, written whole or not; one a user asks for is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

from vitedge.core.errors import InputError


def check_writable(path: Path, option: str) -> None:
    """Refuse, before any work, a `path` that `option` could not be written to."""
    fix = "give a file in a folder that exists and is yours"
    place, temporary = _places(path)
    try:
        if place.exists() and not place.is_file():  # a device would be replaced
            raise InputError(f"cannot write {path} ({option}): it is no regular file", fix=fix)
        temporary.touch()  # rights alone say too little: of /proc, of root, of a long name
        temporary.unlink()
    except OSError as error:
        raise InputError(f"cannot write {path} ({option}): {error.strerror}", fix=fix) from error


def write(path: Path, text: str) -> None:
    """Write `text` as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", errors="replace"), fix="free some space")


def write_bytes(path: Path, content: bytes, fix: str) -> None:
    """As `replace`, but a link stays one. Raises InputError, mended by `fix`."""
    replace(_places(path)[0], content, fix)


def replace(path: Path, content: bytes, fix: str) -> None:
    """Write `content` in the place of whatever is called `path`, in one rename: follows no link.

    Raises InputError, mended by `fix`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", fix=fix) from error
    finally:
        temporary.unlink(missing_ok=True)


def _places(path: Path) -> tuple[Path, Path]:
    """Where `path` leads, and a name beside it."""
    place = Path(os.path.realpath(path))
    return place, place.parent / f".{place.name}.{os.getpid()}"

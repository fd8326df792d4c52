"""Single files, written whole or not; one a user asks for is refused before any work."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
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
        _remove_stale(path)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", fix=fix) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove what killed processes have left of writing `path`."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid = temporary.name.rpartition(".")[2]
        if pid.isdecimal() and not is_alive(int(pid)):
            with contextlib.suppress(OSError):
                temporary.unlink()


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number; on Windows, where asking ends it, there is."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sync_folder(folder: Path) -> None:
    """Flush to disk what its files are called."""
    if sys.platform == "win32":  # which opens none
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _places(path: Path) -> tuple[Path, Path]:
    """Where `path` leads, and a name beside it."""
    place = Path(os.path.realpath(path))
    return place, place.parent / f".{place.name}.{os.getpid()}"

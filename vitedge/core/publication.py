"""How bundles come to where they are read: whole, in one move, in no other thing's place."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vitedge.core.bundle import MANIFEST
from vitedge.core.errors import InputError
from vitedge.core.files import is_alive, sync_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Of renameat2(2)."""


@contextlib.contextmanager
def workspace(output: Path) -> Iterator[Path]:
    """A scratch folder inside `output`, removed at the end; those of killed runs go too.

    Raises InputError when `output` cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        _remove_stale(output)
        work = Path(tempfile.mkdtemp(prefix=f".vitedge-{os.getpid()}-", dir=output))
    except OSError as error:
        raise InputError(
            f"cannot write to {output}: {error.strerror}", fix="choose another `output` folder"
        ) from error
    try:
        yield work
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
            raise
        fix = "look at the disk" if error.errno == errno.EIO else "free some space"
        raise InputError(
            f"cannot write to {output}: {error.strerror}", fix=f"{fix}, or use `output`"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _remove_stale(output: Path) -> None:
    for path in output.glob(".vitedge-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def check_replaceable(final: Path) -> None:
    """Raise InputError where `final` is anything but a bundle: `force` replaces no other folder."""
    if os.path.lexists(final) and (final.is_symlink() or not (final / MANIFEST).is_file()):
        raise InputError(
            f"{final} is no artifact, so it is not replaced", fix="move it away, or use `output`"
        )


def publish(staged: Path, final: Path) -> None:
    """Put the complete bundle `staged` in the place of `final`; an old bundle there goes.

    Killed at any moment this leaves the old bundle or the new one, and whoever reads meanwhile
    finds one of them. Where the file system cannot exchange two folders, none for a moment. Raises
    InputError as `check_replaceable` does.
    """
    check_replaceable(final)
    _sync(staged)
    if not final.exists():
        staged.rename(final)
    elif not _exchange(staged, final):
        old = staged.with_name(staged.name + ".old")
        final.rename(old)
        try:
            staged.rename(final)
        except BaseException:  # Ctrl-C between the two renames, too
            if not final.exists():
                old.rename(final)
            raise
    sync_folder(final.parent)


def _exchange(left: Path, right: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = (os.fsencode(left), os.fsencode(right))
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(error, os.strerror(error), os.fspath(right))


def _sync(folder: Path) -> None:
    """Flush a folder and its files to disk, so that a rename never outlives their content."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)

"""A bundle's files as they were when they were checked: copied while they are hashed.

Whoever can write to a bundle can change it between check and use. Nobody else can write here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from vitedge.core.bounded import open_regular
from vitedge.core.errors import InputError

BLOCK_BYTES = 2**20
PREFIX = "vitedge-verified-"
CHANGED = "it was changed or damaged: copy or export the artifact again"


class PrivateCopy:
    """A folder of this user's alone (mode 0700) that goes with the object, or after its process.

    `path` is where it lies, `digests` the SHA-256 of each file, as it was copied. A lock on it says
    that it is in use, whatever became of the process.
    """

    def __init__(self) -> None:
        """Raises InputError where there is no room for a folder."""
        place = _place()
        _remove_stale(place)
        try:
            while True:
                self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
                lock = _lock(self.path)
                if lock is not None:
                    break  # else another process has just taken it for one that was left
        except OSError as error:
            raise _no_room(place, error) from error
        self.digests: dict[str, str] = {}
        self._finalizer = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def add(self, source: Path, size_bytes: int, sha256: str) -> None:
        """Copy the file `source` here, under its name, if it is of that size and hash.

        Raises InputError where it is not, or is a link or no regular file.
        """
        self.digests[source.name] = check_file(source, size_bytes, sha256, self.path / source.name)

    def take(self, source: Path, limit_bytes: int) -> None:
        """Copy a file of at most `limit_bytes`, whatever it holds. Raises InputError likewise."""
        with open_regular(source, follow=False) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > limit_bytes:
                raise InputError(
                    f"{source} has {size_bytes / 2**20:.0f} MiB, and {limit_bytes / 2**20:.0f} are "
                    "read at most",
                    fix="is it the right file?",
                )
            self.digests[source.name] = _copied(file, size_bytes, self.path / source.name)

    def write(self, name: str, content: bytes) -> None:
        """Put `content` there, too."""
        (self.path / name).write_bytes(content)
        self.digests[name] = hashlib.sha256(content).hexdigest()


def copy_verified(folder: Path, hashes: Mapping[str, str], sizes: Mapping[str, int]) -> PrivateCopy:
    """The files of `folder` that `hashes` and `sizes` (bytes) name, several at a time.

    Raises InputError where one is not what they say.
    """
    copy = PrivateCopy()
    _at_once(copy.add, folder, hashes, sizes)
    return copy


def check_files(folder: Path, hashes: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """As `copy_verified`, where no byte is to be used afterwards: nothing is copied."""
    _at_once(check_file, folder, hashes, sizes)


def check_file(source: Path, size_bytes: int, sha256: str, copy: Path | None = None) -> str:
    """Read a file once, into a new one where `copy` says so; returns its SHA-256: `sha256`.

    Raises InputError where size or hash differ, and for a link or what is no regular file.
    """
    name, folder = source.name, source.parent
    if not os.path.lexists(source):
        raise InputError(f"{folder}: its file {name!r} is missing", fix="export it again")
    differs = InputError(
        f"{folder}: {name!r} is not the file the manifest describes (SHA-256 differs)",
        fix=CHANGED,
    )
    with open_regular(source, follow=False) as file:
        if os.fstat(file.fileno()).st_size != size_bytes:
            raise differs
        digest = _copied(file, size_bytes, copy) if copy else _hashed(file, size_bytes)
    if digest != sha256:
        raise differs
    return digest


def digest(source: Path) -> str:
    """SHA-256 of a regular file, which is no link. Raises InputError."""
    with open_regular(source, follow=False) as file:
        return _hashed(file, os.fstat(file.fileno()).st_size)


def _at_once(
    job: Callable[[Path, int, str], object],
    folder: Path,
    hashes: Mapping[str, str],
    sizes: Mapping[str, int],
) -> None:
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(job, folder / name, sizes[name], hashes[name]) for name in hashes]
        for submitted in jobs:
            submitted.result()


def _copied(file: IO[bytes], size_bytes: int, copy: Path) -> str:
    """As `_hashed`. Raises InputError where there is no room."""
    try:
        with copy.open("xb", buffering=0) as target:
            return _hashed(file, size_bytes, target)
    except OSError as error:
        raise _no_room(copy.parent.parent, error) from error


def _hashed(file: IO[bytes], size_bytes: int, copy: IO[bytes] | None = None) -> str:
    """Read at most `size_bytes` and one more, and copy it; returns the SHA-256 of what was read.

    One thread hashes a block while another reads the next and writes it.
    """
    digest = hashlib.sha256()
    left = size_bytes + 1  # it may have grown since
    blocks = [memoryview(bytearray(min(left, BLOCK_BYTES))) for _ in range(2)]
    with ThreadPoolExecutor(1) as hasher:
        pending: Future[None] | None = None
        while left and (count := file.readinto(blocks[0][:left])):  # type: ignore[attr-defined]
            block = blocks[0][:count]
            if pending:
                pending.result()
            pending = hasher.submit(digest.update, block)
            unwritten = block if copy else block[:0]
            while copy and unwritten:
                unwritten = unwritten[copy.write(unwritten) :]
            left -= count
            blocks.reverse()  # the other has been hashed
    return digest.hexdigest()


def _place() -> Path:
    """A folder for large temporary files: TMPDIR, or one that is no memory."""
    lasting = Path("/var/tmp")
    if "TMPDIR" not in os.environ and os.access(lasting, os.W_OK):
        return lasting
    return Path(tempfile.gettempdir())


def _no_room(place: Path, error: OSError) -> InputError:
    fix = f"free some space in {place}, or let TMPDIR name a folder that has some"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        fix = f"make {place} writable, or let TMPDIR name a folder that is"
    return InputError(f"no copy of the artifact in {place}: {error.strerror}", fix=fix)


def _lock(folder: Path) -> int | None:
    """An open descriptor that holds the lock of `folder`; -1 where the system has none.

    None where another process has removed it.
    """
    if sys.platform == "win32":
        return -1
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    if folder.is_dir():
        return descriptor
    os.close(descriptor)
    return None


def _remove(folder: Path, lock: int, owner: int) -> None:
    if os.getpid() != owner:  # a fork: its parent still reads them
        return
    shutil.rmtree(folder, ignore_errors=True)
    if lock >= 0:
        os.close(lock)


def _remove_stale(place: Path) -> None:
    """Remove what killed processes of this user left in `place`."""
    if sys.platform == "win32":
        return
    import fcntl

    for folder in place.glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # in use
        finally:
            os.close(descriptor)

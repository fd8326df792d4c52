"""One timing at a time on a machine: two benches at once would measure each other."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = Path("/tmp" if os.name == "posix" else tempfile.gettempdir()) / "vitedge-bench.lock"
"""The same for every user, whatever their TMPDIR."""


_threads = threading.RLock()
_entered: list[Path] = []
"""Once for each block within another of the one thread that is in."""


@contextlib.contextmanager
def exclusive_timing(say: Callable[[str], None], path: Path = LOCK) -> Iterator[None]:
    """Wait until nobody else times on this machine, which `say` is told; then keep others waiting.

    A process that is killed leaves nothing behind. A block within another one does not wait.
    Where `path` cannot be opened, as on Windows, nobody waits.
    """
    with _threads, contextlib.ExitStack() as stack:
        if not _entered:
            stack.enter_context(_locked(path, say))
        _entered.append(path)
        stack.callback(_entered.pop)
        yield


@contextlib.contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    if sys.platform == "win32" or (descriptor := _open(path)) is None:
        yield
        return
    import fcntl

    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            say(f"waiting for another vitedge (pid {holder}) that times on this machine")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # another user's file
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """The lock's file, which every user may lock; None where it cannot be had.

    Another user's is not to be opened with O_CREAT: fs.protected_regular of Linux refuses that.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o666)
            if flags & os.O_CREAT:
                os.fchmod(descriptor, 0o666)  # whatever the umask
            return descriptor
    return None

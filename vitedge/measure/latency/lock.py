"""One timing at a time on a machine: two benches at once would measure each other."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK = Path("/tmp" if os.name == "posix" else tempfile.gettempdir()) / "vitedge-bench.lock"
"""The same for every user, whatever their TMPDIR."""
LIMIT_S = 600.0
"""Longest wait for others: whoever can open a file can lock it, and keep the lock."""
CHECK_S = 0.2
"""Between two tries."""

_threads = threading.RLock()
_entered: list[bool] = []
"""Whether it is alone, once for each block within another of the one thread that is in."""


@contextlib.contextmanager
def exclusive_timing(
    say: Callable[[str], None], path: Path = LOCK, limit_s: float = LIMIT_S
) -> Iterator[bool]:
    """Wait until nobody else times on this machine, which `say` is told; then keep others waiting.

    A process that is killed leaves nothing behind. A block within another one does not wait.
    Where `path` cannot be opened, as on Windows, nobody waits. Yields whether nobody else times:
    False after `limit_s` seconds.
    """
    with _threads, contextlib.ExitStack() as stack:
        alone = _entered[-1] if _entered else stack.enter_context(locked(path, say, limit_s))
        _entered.append(alone)
        stack.callback(_entered.pop)
        yield alone


@contextlib.contextmanager
def locked(
    path: Path, say: Callable[[str], None], limit_s: float, doing: str = "times on this machine"
) -> Iterator[bool]:
    """The same of any lock, whose holder is `doing` something; a block within another waits."""
    if sys.platform == "win32" or (descriptor := _open(path)) is None:
        yield True
        return
    alone = _take(descriptor, say, limit_s, doing)
    try:
        if alone:
            _write(descriptor, str(os.getpid()))
        yield alone
    finally:
        if alone:
            _write(descriptor, "")
        os.close(descriptor)


def _take(descriptor: int, say: Callable[[str], None], limit_s: float, doing: str) -> bool:
    """Lock an open file; False where another keeps it for `limit_s` seconds."""
    import fcntl

    began_s: float | None = None
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if began_s is None:
                began_s = time.monotonic()
                text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                holder = f"pid {text}" if text.isdecimal() else "another user's"
                say(f"waiting for another vitedge ({holder}) that {doing}")
            elif time.monotonic() - began_s > limit_s:
                say(f"another process has kept the lock for {limit_s:g} s")
                return False
            time.sleep(CHECK_S)


def _write(descriptor: int, text: str) -> None:
    """Say who holds the lock, in a file that is ours."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _open(path: Path) -> int | None:
    """The lock's file, which every user may lock and its owner alone write to; None without one.

    Another user's is not to be opened with O_CREAT: fs.protected_regular of Linux refuses that.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            with contextlib.suppress(OSError):  # another user's
                os.fchmod(descriptor, 0o644)  # whatever the umask
            return descriptor
    return None

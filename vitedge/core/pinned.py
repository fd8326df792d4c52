"""Keep this process to some cores that no other vitedge is kept to, and let it go again."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/tmp" if os.name == "posix" else tempfile.gettempdir())


@contextlib.contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Compute on so many cores, and start no more threads, while the block runs.

    Where the system does not pin, or has no more than `cores`, nothing is changed.
    """
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    if len(allowed) <= cores:
        yield
        return
    with contextlib.ExitStack() as stack:
        chosen = _free(sorted(allowed), cores, stack)
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(cores)  # of libraries that load meanwhile
        os.sched_setaffinity(0, chosen)
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)
            if threads is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = threads


def _free(allowed: list[int], cores: int, stack: contextlib.ExitStack) -> list[int]:
    """Cores that nobody else has locked, as far as there are; they stay locked in `stack`."""
    import fcntl

    chosen: list[int] = []
    for core in allowed:
        if len(chosen) == cores:
            break
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(FOLDER / f"vitedge-core-{core}.lock", flags, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
            stack.callback(os.close, descriptor)
            chosen.append(core)
    spare = (core for core in allowed if core not in chosen)
    return [*chosen, *(next(spare) for _ in range(cores - len(chosen)))]

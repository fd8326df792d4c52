"""The compiler prints to stdout, which belongs to what the user asked for: `--json`, above all."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stdout_discarded() -> Iterator[None]:
    """Drop what native code writes to this process's standard output; its errors are in the log."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)  # else it is written when the process ends
        os.dup2(kept, 1)
        os.close(kept)

"""A job that dies, or finds the disk full, at one of the places where it changes its output.

A site is a call (open to write, write, rename, exchange, fsync, remove, mkdir) and the lines of
ours that it comes from. A run is traced first; then each site is hit in a process of its own.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import vitedge
from vitedge.core import publication

HOW = ("kill", "ENOSPC", "EIO")
FRAMES = 3
"""Of ours, innermost first, that tell one site from another."""
_OURS = str(Path(vitedge.__file__).parent)
_RANDOM = r"(?<=[.-])[a-z0-9_]{8}(?=\.|$)|\d+"
"""What differs from run to run in the names of temporary files."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PATHS = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1}
"""Audit events, and how many paths they begin with."""


class Site(NamedTuple):
    """One place in the code, and what it does to which kind of file."""

    call: str
    name: str
    """Of the file; digits are left out, as process numbers are in some."""
    frames: str

    def __str__(self) -> str:
        return f"{self.call} {self.name} at {self.frames}"


class Watch:
    """Tells of all that happens to files under `folder`, for the rest of this process."""

    def __init__(self, folder: Path, told: Callable[[Site], None]) -> None:
        self._folder, self._told, self._inside = str(folder.resolve()), told, False
        sys.addaudithook(self._heard)
        for module in (builtins, io):
            module.open = self._open  # type: ignore[attr-defined]
        self._fsync, self._exchange = os.fsync, publication._exchange
        os.fsync = self._synced  # type: ignore[assignment]
        publication._exchange = self._exchanged  # type: ignore[assignment]

    def tell(self, call: str, path: Any) -> None:
        if self._inside or not isinstance(path, (str, bytes, os.PathLike)):
            return
        self._inside = True
        try:
            text = os.path.abspath(os.fsdecode(path))
            if text.startswith(self._folder):
                name = re.sub(_RANDOM, "", os.path.basename(text))
                name = "" if text == self._folder else name
                self._told(Site(call, name, _frames()))
        finally:
            self._inside = False

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES:
                self.tell("open", path)
        elif event in _PATHS:
            for path in arguments[: _PATHS[event]]:
                self.tell(event.removeprefix("os."), path)

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = _OPEN(file, mode, *args, **kwargs)
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return stream
        return _Told(stream, lambda: self.tell("write", file))

    def _synced(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        self.tell("fsync", os.readlink(f"/proc/self/fd/{number}"))
        self._fsync(descriptor)

    def _exchanged(self, left: Path, right: Path) -> bool:
        self.tell("exchange", right)
        done = self._exchange(left, right)
        self.tell("exchanged", right)
        return done


_OPEN = io.open


class _Told:
    """A file that says when it is written to; what it has been given before is on its way."""

    def __init__(self, stream: Any, tell: Callable[[], None]) -> None:
        self._stream, self._tell = stream, tell

    def write(self, data: Any) -> Any:
        if not hasattr(self._stream, "encoding"):
            half = memoryview(data).cast("B")[: memoryview(data).nbytes // 2]
            self._stream.write(half)
            self._stream.flush()
            self._tell()
            rest = self._stream.write(memoryview(data).cast("B")[len(half) :])
            return len(half) + rest
        self._tell()
        return self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._stream)


def _frames() -> str:
    frame, lines = sys._getframe(2), []
    while frame is not None and len(lines) < FRAMES:
        code = frame.f_code
        if code.co_filename.startswith(_OURS):
            lines.append(f"{Path(code.co_filename).name}:{frame.f_lineno}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(lines)


def sites(folder: Path, job: Callable[[], object]) -> list[Site]:
    """Those that `job` comes by, in order, once each."""
    seen: Counter[Site] = Counter()
    Watch(folder, lambda site: seen.update([site]))
    job()
    return list(seen)


def hit(folder: Path, job: Callable[[], object], site: Site, how: str) -> str:
    """Run `job` and let it die or fail at `site`; returns how it ended: `done`, or the error."""

    def told(here: Site) -> None:
        if here == site and not struck:
            struck.append(here)
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            number = getattr(errno, how)
            raise OSError(number, os.strerror(number), site.name)

    struck: list[Site] = []
    Watch(folder, told)
    try:
        job()
    except vitedge.VitedgeError as error:
        return f"refused: {error.what}"
    except OSError as error:
        return f"crashed: {error}"
    return "done" if struck else "done, and never came by"

"""The processes that this one started, and theirs: a browser computes in several.

Read from Linux's /proc; elsewhere there are none.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from time import process_time

_KIB = re.compile(r"^(VmHWM|VmRSS|Pss):\s+(\d+) kB", re.MULTILINE)


def cpu_s(root: Path) -> float:
    """CPU time of this process, of those it started and of theirs, seconds."""
    times = os.times()
    spent = process_time() + times.children_user + times.children_system
    if not (started := list(descendants(root))):
        return spent
    second = os.sysconf("SC_CLK_TCK")
    return spent + sum(sum(map(int, _stat(folder)[11:15])) for folder in started) / second


def peak_bytes(root: Path) -> int:
    """Peak resident memory of all that this process started, bytes.

    What several of them share is counted once, where the kernel tells how much that is.
    """
    return sum(map(_peak_bytes, descendants(root)))


def _peak_bytes(folder: Path) -> int:
    text = ""
    for name in ("status", "smaps_rollup"):  # the latter is not readable of a sandboxed process
        with contextlib.suppress(OSError):
            text += (folder / name).read_text(encoding="utf-8")
    kib = {name: int(size) for name, size in _KIB.findall(text)}
    shared = kib["VmRSS"] - kib["Pss"] if {"VmRSS", "Pss"} <= kib.keys() else 0
    return 1024 * max(0, kib.get("VmHWM", 0) - shared)


def descendants(root: Path) -> Iterator[Path]:
    """The folder in /proc of each process that this one started, and of theirs."""
    children: dict[str, list[Path]] = {}
    for folder in (root / "proc").glob("[0-9]*"):
        if fields := _stat(folder):
            children.setdefault(fields[1], []).append(folder)
    pending = [str(os.getpid())]
    while pending:
        started = children.get(pending.pop(), [])
        pending += [folder.name for folder in started]
        yield from started


def _stat(folder: Path) -> list[str]:
    """The fields of a process behind its name: state, parent, …; none where it has ended."""
    try:
        return (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []

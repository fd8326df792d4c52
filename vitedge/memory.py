"""Peak memory of an artifact, taken in a process of its own.

In the caller's process the peak would be that of everything it ever loaded.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from vitedge.artifact import open_bundle
from vitedge.backends import open_session
from vitedge.errors import InputError, UnavailableError, VitedgeError

RUNS = 5
"""Runs after opening: arenas grow with the first few."""


def peak_rss_bytes(bundle: Path) -> int:
    """Measure the peak resident memory of a fresh process that opens `bundle` and runs it.

    Counts the Python interpreter, numpy and the runtime: what the device must have free.

    Raises:
        InputError: `bundle` is not a sound artifact.
        UnavailableError: its runtime is missing, or the process was killed, or Windows.
    """
    child = subprocess.run(
        [sys.executable, "-m", "vitedge.memory", str(bundle)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == 0:
        return int(child.stdout.split()[-1])
    for kind in (InputError, UnavailableError):
        if child.returncode == kind.exit_code and child.stdout:
            what, _, fix = child.stdout.rstrip("\n").partition("\n")
            raise kind(what, fix=fix)
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise UnavailableError(
            f"the process that ran {bundle} to measure its memory died of {name}",
            fix="free some memory, or run on a machine with more",
        )
    reason = (child.stderr.splitlines() or ["no message"])[-1]
    raise VitedgeError(f"{bundle} failed to run while its memory was measured: {reason}")


def _run(bundle: Path) -> int:
    """Open `bundle` and run it on its golden images; returns this process's peak, bytes."""
    artifact = open_bundle(bundle)
    images = artifact.golden().images  # (k, H, W, 3)
    with open_session(artifact) as session:
        (entry,) = session.inputs
        batch = entry.shape[0] or 1
        feed = {entry.name: np.resize(images, (batch, *images.shape[1:]))}
        for _ in range(RUNS):
            session.run(feed)
    return _peak()


def _peak() -> int:
    """Peak resident memory of this process, bytes."""
    if sys.platform == "win32":
        raise UnavailableError("peak memory is not measured on Windows")
    import resource

    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux carries it over exec, so it would hold the parent's memory too.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        raise UnavailableError("this kernel does not report peak memory (VmHWM)")
    return int(match[1]) * 1024


if __name__ == "__main__":
    try:
        print(_run(Path(sys.argv[1])))
    except VitedgeError as error:
        print(error.what, error.fix, sep="\n")
        sys.exit(error.exit_code)

"""A job on the device: outlives a lost connection, and ends itself when nobody asks for it.

`python -m vitedge.measure.remote.runner FOLDER`, from an install that the agent made.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from vitedge.core.progress import LINES

CHECK_S = 0.2


class JobPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a job does."""

    commands: tuple[tuple[str, ...], ...]
    """Arguments of `vitedge`, run where the parcels lie, each if the one before it succeeded.
    What the last of them prints on stdout is the job's result."""
    lease_s: float
    """Longest time that nobody asks before the job ends itself."""


def run(folder: Path) -> None:
    """Run the job in `folder`, whose log is this process's output, and write its exit code."""
    plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=JobPlan)
    code = 0
    for arguments in plan.commands:
        if code == 0:
            code = _run(arguments, folder, plan.lease_s)
    partial = folder / "exit.part"
    partial.write_text(str(code), encoding="utf-8")
    partial.rename(folder / "exit")


def _run(arguments: tuple[str, ...], folder: Path, lease_s: float) -> int:
    """Run one command and return its exit code; without a client for too long, end everything."""
    with (folder / "result").open("wb") as result:
        child = subprocess.Popen(
            [sys.executable, "-m", "vitedge", *arguments],
            cwd=folder,
            env={**os.environ, LINES: "1"},
            stdin=subprocess.DEVNULL,
            stdout=result,
            close_fds=False,  # it holds the job's lock, too: who stops the job finds it
        )
    lease, last_touch, touched_s = folder / "lease", 0, time.monotonic()
    while True:
        try:
            return child.wait(CHECK_S)
        except subprocess.TimeoutExpired:
            touch = lease.stat().st_mtime_ns if lease.exists() else 0
            if touch and touch != last_touch:  # the device's own clock may jump
                last_touch, touched_s = touch, time.monotonic()
            if not touch or time.monotonic() - touched_s > lease_s:
                shutil.rmtree(folder, ignore_errors=True)
                os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    run(Path(sys.argv[1]))

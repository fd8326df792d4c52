"""A process that has imported what its jobs need: each of them runs in a fork of it, watched."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

CPU_S = 1200
"""Of a job, at most; and so many times that on the clock, as other work may run beside."""
PATIENCE = 8
MEMORY_BYTES = 8 << 30
_TOLD = 1500
"""Characters of what a job printed that are kept."""


class Warm:
    """A process that has imported what its jobs need; each of them runs in a fork of it."""

    def __init__(self, prepare: Callable[[], object]) -> None:
        self._here, there = Pipe()
        self._pid = os.fork()
        if not self._pid:
            self._here.close()
            self._serve(there, prepare)
        there.close()

    def run(self, job: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """What `job` returns; `crashed`, where it raised, hung or died; `terminal`: its prints."""
        self._here.send((job, arguments))
        return self._here.recv()

    def close(self) -> None:
        """End it."""
        self._here.close()
        os.waitpid(self._pid, 0)

    @staticmethod
    def _serve(jobs: Any, prepare: Callable[[], object]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        kept = prepare()
        while True:
            try:
                job, arguments = jobs.recv()
            except (EOFError, OSError):
                os._exit(0)
            jobs.send(_forked(job, arguments))
        del kept


def _forked(job: Callable[..., dict[str, Any]], arguments: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        printed, answer = Path(folder, "printed"), Path(folder, "answer")
        pid = os.fork()
        if not pid:
            _child(job, arguments, printed, answer)
        deadline = time.monotonic() + CPU_S * PATIENCE
        while not (ended := os.wait4(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return {"crashed": f"still not done after {CPU_S * PATIENCE} s"}
            time.sleep(0.02)
        row = json.loads(answer.read_text()) if answer.exists() else {}
        row["cpu_s"] = round(ended[2].ru_utime + ended[2].ru_stime, 1)
        if not answer.exists():
            slow = os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) == signal.SIGXCPU
            why = f"took more than {CPU_S} s" if slow else f"its process died: {ended[1]}"
            row["crashed"] = why
        if terminal := printed.read_text(errors="replace"):
            row["terminal"] = terminal[:_TOLD]
        return row


def _child(job: Callable[..., Any], arguments: Any, printed: Path, answer: Path) -> None:
    with printed.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.register(signal.SIGXCPU, chain=True)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 10))
    try:
        row = job(*arguments)
    except BaseException:
        row = {"crashed": traceback.format_exc()[-_TOLD:]}
    answer.write_text(json.dumps(row))
    os._exit(0)

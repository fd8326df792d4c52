"""One ssh connection to a device, by the user's own OpenSSH client: what is lost is taken up again.

Configuration, keys, agents and jump hosts are therefore the user's; host keys are never accepted.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitedge.core.errors import UnavailableError
from vitedge.core.progress import Steps
from vitedge.measure.remote.address import Address

OPTIONS = {
    "BatchMode": "yes",
    "ClearAllForwardings": "yes",
    "ConnectTimeout": "15",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
}
LOADER = (
    "import sys;sys.version_info<(3,10) and sys.exit(sys.version);"
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
"""Works in any shell, as it has no quote in it, and in any Python, which it may find too old."""
GREETING = b"vitedge-agent "
"""The agent repeats it: what comes before, the login shell has printed."""
FINAL = {
    r"HOST IDENTIFICATION HAS CHANGED[\s\S]*?(Offending .*)": (
        "{device} has another host key than the one you know: {detail}",
        "this may be another machine that answers; where you know why, remove that line",
    ),
    r"Host key verification failed": (
        "the host key of {device} is not known",
        "connect once by hand, and compare its fingerprint: {by_hand}",
    ),
    r"Permission denied": (
        "{device} does not let you in: {reason}",
        "keys only, no passwords: ssh-copy-id, or ssh-add; try it by hand: {by_hand}",
    ),
    r"\A1\n[\s\S]*?^(\d+\.\d+\S*) \(": (
        "{device} has Python {detail}, and vitedge needs 3.10",
        "install a newer one there, and make it the python3 of its PATH",
    ),
    r"\A12[67]\n": ("{device} has no python3: {reason}", "install Python 3.10 or newer there"),
}
"""Where trying again is of no use: ssh's exit code and stderr; what is wrong, and its fix."""


@dataclass(frozen=True)
class Patience:
    """How long what is waited for, seconds."""

    reconnect_s: float = 90.0
    """To get a lost connection back."""
    lease_s: float = 120.0
    """Before a bench on the device that nobody asks for ends itself; longer than `reconnect_s`."""
    poll_s: float = 1.0
    """Between two looks at a bench: often enough for people, seldom enough not to disturb it."""


PATIENCE = Patience()


class Stopped(Exception):
    """The user has interrupted the work."""


@dataclass(frozen=True)
class _Failure:
    """Why an ssh process ended."""

    reason: str
    error: UnavailableError
    final: bool


class Connection:
    """Calls the agent on a device, and connects again where the connection was lost."""

    def __init__(self, address: Address, steps: Steps, patience: Patience) -> None:
        self.address, self.patience = address, patience
        self.machine: dict[str, Any] = {}
        """What the agent said of it: `cache`, `free_bytes`; empty before the first call."""
        self._steps = steps
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._interruptible = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection

    def call(
        self, verb: str, payload: bytes | None = None, *, last: bool = False, **arguments: Any
    ) -> Any:
        """What the agent's `verb` returns; `last`: even after an interrupt, and tried once.

        Raises:
            UnavailableError: the device refuses, or is gone for longer than we have patience.
            Stopped: the user has interrupted.
        """
        if payload is not None:
            arguments["bytes"] = len(payload)
        request = json.dumps({"verb": verb, **arguments}).encode() + b"\n" + (payload or b"")
        deadline, pause = 0.0, 0.5
        while True:
            try:
                answer = self._ask(request, last)
                break
            except OSError as lost:
                failure = self._close()
                if self._stop.is_set() and not last:
                    raise Stopped from lost
                if last or failure.final or not self.machine:
                    raise failure.error from lost
                if not deadline:
                    deadline = time.monotonic() + self.patience.reconnect_s
                    self._steps.note(f"{self.address.text}: connection lost, trying again")
                if time.monotonic() + pause > deadline:
                    raise UnavailableError(
                        f"{self.address.text} is gone: {failure.reason}",
                        fix="look at the device, then run the same command again: "
                        "what was copied is still there",
                    ) from lost
                self._stop.wait(pause)
                pause = min(2 * pause, 10.0)
        if deadline:
            self._steps.note(f"{self.address.text}: connected again")
        if "what" in answer:
            raise UnavailableError(f"{self.address.text}: {answer['what']}", fix=answer["fix"])
        return answer["answer"]

    def pause(self) -> None:
        """Wait between two looks. Raises Stopped."""
        if self._stop.wait(self.patience.poll_s):
            raise Stopped

    def interrupt(self) -> None:
        """Let the thread that calls the agent raise Stopped, whatever it waits for."""
        with self._lock:
            self._stop.set()
            if self._process is not None and self._interruptible:
                self._process.kill()

    def close(self) -> None:
        """Let go of the device."""
        if self._process is not None:
            self._close()
        self._stderr.close()

    def _ask(self, request: bytes, last: bool) -> dict[str, Any]:
        """Send a request and read its answer. Raises OSError where the connection is lost."""
        with self._lock:
            if self._stop.is_set() and not last:
                raise Stopped
            if opened := self._process is None:
                self._process = self._open()
            self._interruptible = not last
        if opened:
            code = Path(__file__).with_name("agent.py").read_bytes()
            line = self._exchange(b"%d\n%s%s\n" % (len(code), code, GREETING))
            while not line.startswith(GREETING):
                line = self._exchange(b"")
            self.machine = json.loads(line.removeprefix(GREETING))["answer"]
        answer: dict[str, Any] = json.loads(self._exchange(request))
        with self._lock:
            self._interruptible = False
            if self._stop.is_set() and not last:
                raise ConnectionAbortedError
        return answer

    def _open(self) -> subprocess.Popen[bytes]:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UnavailableError("there is no `ssh` here", fix="install the OpenSSH client")
        self._stderr.seek(0)
        self._stderr.truncate()
        options = [f"-o{key}={value}" for key, value in OPTIONS.items()]
        port = ["-p", str(self.address.port)] if self.address.port else []
        return subprocess.Popen(
            [ssh, *options, *port, "--", self.address.destination, f"python3 -c '{LOADER}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def _exchange(self, data: bytes) -> bytes:
        """Send bytes, and read a line."""
        assert self._process is not None and self._process.stdin and self._process.stdout
        self._process.stdin.write(data)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        return line

    def _close(self) -> _Failure:
        """End the ssh process; returns why it did, where it was not we who closed it."""
        process, self._process = self._process, None
        assert process is not None and process.stdin and process.stdout
        with process.stdout, contextlib.suppress(OSError):
            process.stdin.close()
        try:
            code = process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._stderr.seek(0)
        stderr = self._stderr.read().decode(errors="replace").replace("\r", "")
        lines = [line.strip() for line in stderr.splitlines() if line.strip(" @")]
        port = f"-p {self.address.port} " if self.address.port else ""
        words = {
            "device": self.address.text,
            "reason": lines[-1] if lines else f"ssh ended with exit code {code}",
            "by_hand": f"ssh {port}{self.address.destination} true",
        }
        what, fix = "cannot reach {device}: {reason}", "try it by hand: {by_hand}"
        for pattern, texts in FINAL.items():
            if match := re.search(pattern, f"{code}\n{stderr}", re.MULTILINE):
                words["detail"] = match[match.lastindex or 0]
                what, fix = texts
                break
        error = UnavailableError(what.format(**words), fix=fix.format(**words))
        return _Failure(words["reason"], error, final="detail" in words)

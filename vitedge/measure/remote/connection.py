"""One ssh connection to a device, by the user's own OpenSSH client: what is lost is taken up again.

Configuration, keys, agents and jump hosts are therefore the user's; host keys are never accepted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
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
from vitedge.measure.remote import answers
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
        self.machine: answers.Machine | None = None
        """What the agent said of it; None before the first call."""
        self._steps = steps
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._interruptible = False
        self._received = bytearray()
        """What came behind the last line that was read."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection

    def call(
        self, verb: str, payload: bytes | None = None, *, last: bool = False, **arguments: Any
    ) -> Any:
        """What the agent's `verb` returns; `last`: even after an interrupt, and tried once.

        Raises:
            UnavailableError: the device refuses, is gone for longer than we have patience, does not
                answer in time, or not what such an agent does.
            Stopped: the user has interrupted.
        """
        if payload is not None:
            arguments["bytes"] = len(payload)
        request = json.dumps({"verb": verb, **arguments}).encode() + b"\n" + (payload or b"")
        deadline, pause = 0.0, 0.5
        while True:
            try:
                line = self._ask(verb, request, last)
                break
            except UnavailableError:
                self._let_go()
                raise
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
        return self._decoded(verb, line)

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
        """Let go of the device, for good."""
        self._let_go()
        self._stderr.close()

    def _let_go(self) -> None:
        if self._process is not None:
            self._close()

    def _ask(self, verb: str, request: bytes, last: bool) -> bytes:
        """Send a request and read its answer, a line.

        Raises OSError where the connection is lost, UnavailableError as `call` does.
        """
        with self._lock:
            if self._stop.is_set() and not last:
                raise Stopped
            if opened := self._process is None:
                self._process = self._open()
                self._received.clear()
            self._interruptible = not last
        if opened:
            self.machine = self._greeted()
        line = self._exchange(verb, request)
        with self._lock:
            self._interruptible = False
            if self._stop.is_set() and not last:
                raise ConnectionAbortedError
        return line

    def _greeted(self) -> answers.Machine:
        """Start the agent, and hear what machine that is; what a login shell prints is skipped."""
        code = Path(__file__).with_name("agent.py").read_bytes()
        data = b"%d\n%s%s\n" % (len(code), code, GREETING)
        printed = 0
        while not (line := self._exchange("hello", data)).startswith(GREETING):
            data, printed = b"", printed + len(line)
            if printed > answers.BANNER_BYTES:
                raise self._stranger(f"it prints {printed / 2**20:.1f} MiB, and no greeting")
        machine: answers.Machine = self._decoded("hello", line.removeprefix(GREETING))
        return machine

    def _decoded(self, verb: str, line: bytes) -> Any:
        try:
            return answers.decode(verb, line)
        except answers.RefusedError as refused:
            what, fix = refused.args
            raise UnavailableError(f"{self.address.text}: {what}", fix=fix) from None
        except ValueError as error:
            raise self._stranger(f"{error}"[: answers.TEXT_LENGTH]) from error

    def _stranger(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"{self.address.text} does not answer as vitedge's agent does: {why}",
            fix="is it the device that you mean, and does its python3 run what it is given?",
        )

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
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def _exchange(self, verb: str, data: bytes) -> bytes:
        """Send bytes, and read a line, in the time that `verb` has."""
        assert self._process is not None and self._process.stdin and self._process.stdout
        to, of = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(to, False)
        limit_s = answers.LIMITS_S[verb]
        deadline = time.monotonic() + limit_s
        pending, searched = memoryview(data), 0
        while True:
            end = self._received.find(b"\n", searched) + 1
            if end and not pending:
                line = bytes(self._received[:end])
                del self._received[:end]
                return line
            searched = len(self._received)
            if searched > answers.LINE_BYTES:
                raise self._stranger(f"a line of {searched / 2**20:.0f} MiB")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise UnavailableError(
                    f"{self.address.text} has not answered '{verb}' for {limit_s:g} s",
                    fix="look at the device: is it overloaded, or its disk or network stuck?",
                )
            readable, writable, _ = select.select([of], [to] if pending else [], [], left_s)
            if writable:
                pending = pending[os.write(to, pending[: 2**16]) :]
            if readable:
                block = os.read(of, 2**16)
                if not block:
                    raise ConnectionResetError
                self._received += block

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

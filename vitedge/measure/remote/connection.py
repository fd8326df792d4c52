"""One ssh connection to a device, by the user's own OpenSSH client: what is lost is taken up again.

Configuration, keys, agents and jump hosts are therefore the user's; host keys are never accepted.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
CHECK_S = 0.2
"""Between two looks whether the user has interrupted."""


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


class _Lost(Exception):
    """The connection broke."""


class Connection:
    """Calls the agent on a device, and connects again where the connection was lost."""

    def __init__(
        self, address: Address, steps: Steps, stop: threading.Event, patience: Patience
    ) -> None:
        self.address = address
        self._steps, self._stop, self._patience = steps, stop, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._leaving = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        self.machine: dict[str, Any] = {}
        """What the agent said of it: `python`, `machine`, `free_bytes`, `cache`."""

    def call(self, verb: str, payload: bytes | None = None, **arguments: Any) -> Any:
        """What the agent's `verb` returns.

        Raises:
            UnavailableError: the device refuses, or is gone for longer than we have patience.
            Stopped: the user has interrupted.
        """
        if payload is not None:
            arguments["bytes"] = len(payload)
        request = json.dumps({"verb": verb, **arguments}).encode() + b"\n" + (payload or b"")
        deadline, pause = 0.0, 0.5
        while True:
            self._check()
            try:
                answer = self._ask(request)
                break
            except _Lost as lost:
                error = self._close()
                if not self.machine or error.final:
                    raise error.unavailable from lost
                if not deadline:
                    deadline = time.monotonic() + self._patience.reconnect_s
                    self._steps.note(f"{self.address.text}: connection lost, trying again")
                if time.monotonic() + pause > deadline:
                    raise UnavailableError(
                        f"{self.address.text} is gone: {error.reason}",
                        fix="look at the device, then run the same command again: "
                        "what was copied is still there",
                    ) from lost
                self._stop.wait(pause)
                pause = min(2 * pause, 10.0)
        if deadline:
            self._steps.note(f"{self.address.text}: connected again")
        return self._read_answer(answer)

    def call_last(self, verb: str, **arguments: Any) -> None:
        """Call `verb` once, even after an interrupt. Raises UnavailableError where that fails."""
        self._leaving = True
        try:
            self._read_answer(self._ask(json.dumps({"verb": verb, **arguments}).encode() + b"\n"))
        except _Lost as lost:
            raise self._close().unavailable from lost

    def pause(self) -> None:
        """Wait between two looks. Raises Stopped."""
        self._stop.wait(self._patience.poll_s)
        self._check()

    def close(self) -> None:
        """Let go of the device."""
        if self._process is not None:
            self._close()
        self._stderr.close()

    def _check(self) -> None:
        if self._stop.is_set() and not self._leaving:
            raise Stopped

    def _read_answer(self, answer: dict[str, Any]) -> Any:
        if "what" in answer:
            what = f"{self.address.text}: {answer['what']}"
            raise UnavailableError(what, fix=answer.get("fix", ""))
        return answer["answer"]

    def _open(self) -> None:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UnavailableError("there is no `ssh` here", fix="install the OpenSSH client")
        self._stderr.seek(0)
        self._stderr.truncate()
        options = [f"-o{key}={value}" for key, value in OPTIONS.items()]
        port = ["-p", str(self.address.port)] if self.address.port else []
        self._process = subprocess.Popen(
            [ssh, *options, *port, "--", self.address.destination, f"python3 -c '{LOADER}'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        assert self._process.stdout is not None
        self._lines = queue.SimpleQueue()
        threading.Thread(
            target=_pump, args=(self._process.stdout, self._lines), daemon=True
        ).start()
        code = Path(__file__).with_name("agent.py").read_bytes()
        self._write(b"%d\n%s" % (len(code), code))
        while not (line := self._read()).startswith(GREETING):
            pass  # what the login shell may print
        self.machine = json.loads(line.removeprefix(GREETING))

    def _ask(self, request: bytes) -> dict[str, Any]:
        if self._process is None:
            self._open()
        self._write(request)
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def _write(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError as error:
            raise _Lost from error

    def _read(self) -> bytes:
        while True:
            try:
                line = self._lines.get(timeout=CHECK_S)
            except queue.Empty:
                try:
                    self._check()
                except Stopped:
                    self._close()  # an answer is still due on this connection
                    raise
                continue
            if not line.endswith(b"\n"):
                raise _Lost
            return line

    def _close(self) -> _Failure:
        """End the ssh process; returns what it said."""
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            code = process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._stderr.seek(0)
        return _Failure(self.address, code, self._stderr.read().decode(errors="replace"))


def _pump(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Hand on what the agent says, and an empty line at its end."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


class _Failure:
    """Why an ssh process ended, from its exit code and what it said."""

    def __init__(self, address: Address, code: int, stderr: str) -> None:
        lines = [line.strip() for line in stderr.splitlines() if line.strip(" @\r")]
        self.reason = lines[-1] if lines else f"ssh ended with exit code {code}"
        text, by_hand = address.text, f"ssh {address.destination}"
        if address.port:
            by_hand = f"ssh -p {address.port} {address.destination}"
        what = f"cannot reach {text}: {self.reason}"
        fix = f"try it by hand: {by_hand} true"
        self.final = True
        """Whether trying again is of no use."""
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
            known = [line for line in lines if line.startswith("Offending")]
            what = ": ".join([f"{text} has another host key than the one you know", *known[:1]])
            fix = "this may be another machine that answers; where you know why, remove that line"
        elif "Host key verification failed" in stderr:
            what = f"the host key of {text} is not known"
            fix = f"connect once by hand, and compare its fingerprint: {by_hand} true"
        elif "Permission denied" in stderr:
            what = f"{text} does not let you in: {self.reason}"
            fix = (
                f"keys only, no passwords: ssh-copy-id, or ssh-add; try it by hand: {by_hand} true"
            )
        elif (python := re.search(r"^(\d+\.\d+\S*) \(", stderr, re.MULTILINE)) and code == 1:
            what = f"{text} has Python {python[1]}, and vitedge needs 3.10"
            fix = "install a newer one there, and make it the python3 of its PATH"
        elif code in (126, 127):
            what, fix = (
                f"{text} has no python3: {self.reason}",
                "install Python 3.10 or newer there",
            )
        else:
            self.final = False
        self.unavailable = UnavailableError(what, fix=fix)

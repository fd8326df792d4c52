"""What runs on the device: sent over ssh as text, so that all it takes there is Python 3.10.

Each request is a line of JSON on stdin, and bytes where it says so; each answer a line on stdout.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
"""Longest silence of the client before the agent ends."""
KEPT_S = 30 * 86400.0
"""What was not used for so long is removed from the cache."""
CHECK_S = 0.2
"""Between two looks at what is waited for."""
LOG_BYTES, RESULT_BYTES = 2**20, 2**25
"""Of what a job has said, in one answer; of its result, at most."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitedge"
FILES, JOBS = CACHE / "files", CACHE / "jobs"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_turn: list[int] = []
"""The lock of the one connection that copies and installs, where this is it."""


class Refused(Exception):
    """A request that cannot be met: what is wrong, and how to mend it."""


class Gone(Exception):
    """The client is not there any more."""


def hello() -> dict[str, Any]:
    """What this machine is; what was left here and not used for long goes."""
    for folder in (CACHE, FILES, JOBS):
        _private(folder)
    kept = (*CACHE.glob("venv-*"), *CACHE.glob("selftest-*"), *FILES.glob("*"))
    limits_s = {path: KEPT_S for path in kept}
    limits_s |= {job: PATIENCE_S for job in JOBS.glob("*") if not _locked(job / "lock")}
    for path, limit_s in limits_s.items():
        with contextlib.suppress(OSError):  # another agent removes it, too
            if time.time() - path.stat().st_mtime > limit_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"cache": str(CACHE), "free_bytes": shutil.disk_usage(CACHE).free}


def _private(folder: Path) -> None:
    """Make a folder that nobody else can look into. Raises Refused where another's is in its place.

    What lies in it is this user's alone: others could put links there, or other files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise Refused(f"{folder} is a link, or another user's", "remove it there")
    if stat.S_IMODE(state.st_mode) != 0o700:
        with contextlib.suppress(PermissionError):  # a FAT card has no modes
            folder.chmod(0o700)


def held(files: list[str]) -> dict[str, int]:
    """How many bytes are here of each file, named by its SHA-256, that is not here whole.

    If there is one, this client alone may copy until it starts its job or is gone; others wait.
    """
    if not all((FILES / sha).exists() for sha in files):
        _take_turn()
    sizes = {}
    for sha in files:
        file, part = FILES / sha, FILES / f"{sha}.part"
        if file.exists():
            os.utime(file)
        else:
            sizes[sha] = part.stat().st_size if part.exists() else 0
    return sizes


def write(sha: str, offset: int, size: int, payload: bytes) -> bool:
    """Put bytes into a file that is under way; what lay behind `offset` goes.

    With the last of its `size` bytes it is checked. Returns False where it is not what was sent;
    then it is gone.
    """
    file, part = FILES / sha, FILES / f"{sha}.part"
    if file.exists():
        return True
    _take_turn()
    part.touch()
    try:
        with part.open("r+b") as stream:
            stream.truncate(offset)
            stream.seek(offset)
            stream.write(payload)
    except OSError as error:
        if error.errno in FULL:
            part.unlink()  # a device with a full disk is in trouble
        raise
    if offset + len(payload) < size:
        return True
    if _digest(part) != sha:
        part.unlink()
        return False
    part.rename(file)
    return True


def install(wheel: str, requirement: str, system: bool) -> str:
    """A venv with `requirement`, a wheel's name and its extras; returns its folder's name.

    `system` lets it see what the machine's own Python has: a Jetson's TensorRT.
    """
    key = hashlib.sha256(f"{wheel} {requirement} {sys.version}".encode()).hexdigest()[:16]
    venv = CACHE / f"venv-{key}"
    complete = venv / "complete"
    if not complete.exists():
        _take_turn()
    if complete.exists():
        os.utime(venv)
        return venv.name
    shutil.rmtree(venv, ignore_errors=True)
    flags = ["--system-site-packages"] if system else []
    _run(
        [sys.executable, "-m", "venv", *flags, str(venv)],
        "cannot make a virtual environment",
        "install the package python3-venv there",
    )
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    pip += ["--disable-pip-version-check", "--prefer-binary", "--no-compile"]
    wheels = CACHE / "offline"
    if wheels.is_dir():
        pip += ["--no-index", "--find-links", str(wheels)]
    _link(wheel, venv / requirement.partition("[")[0])
    _run(
        [*pip, str(venv / requirement)],
        f"pip could not install {requirement.partition('-')[0]}",
        f"is there a network? Without one, put the wheels it needs into {wheels} there",
    )
    complete.touch()
    return venv.name


def start(job: str, venv: str, files: dict[str, str], plan: dict[str, Any]) -> None:
    """Begin a job that outlives this connection, where its `files` lie: by path, their hashes.

    `plan` has its `commands`, arguments of `vitedge`, each run if the one before it succeeded: what
    the last prints on stdout is the result; their `environment`; and `lease_s`, for how long it
    runs with no client.
    """
    while _turn:
        os.close(_turn.pop())
    folder = JOBS / job
    if (folder / "pid").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for place, sha in files.items():
        _link(sha, folder / place)
    (folder / "lease").touch()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT, 0o600)
    pid = os.fork()
    if pid:
        os.close(lock)
        os.close(log)
        (folder / "pid").write_text(str(pid))
        return
    try:
        os.setsid()
        for stream, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(source, stream)
        os.environ.update(plan["environment"])
        os.set_inheritable(lock, True)  # held until the last of them is gone, however it goes
        vitedge, code = [str(CACHE / venv / "bin" / "python"), "-m", "vitedge"], 0
        for arguments in plan["commands"]:
            code = code or _follow([*vitedge, *arguments], folder, plan["lease_s"])
        (folder / "exit").write_text(str(code))
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def _follow(command: list[str], folder: Path, lease_s: float) -> int:
    """Run one command of a job and return its exit code; without a client, end everything."""
    with (folder / "result").open("wb") as result:
        child = subprocess.Popen(command, cwd=folder, stdout=result, close_fds=False)
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


def poll(job: str, offset: int) -> dict[str, Any]:
    """What a job has said since `offset`, its exit code, None while it runs, and its result.

    Asking is what keeps it running.
    """
    folder = JOBS / job
    if not folder.is_dir():
        raise Refused("the job is gone: nobody asked for it for too long", "start it again")
    os.utime(folder / "lease")
    running = _locked(folder / "lock")
    with (folder / "log").open("rb") as log:
        log.seek(offset)
        output = log.read(LOG_BYTES)
    answer = {"log": output.decode(errors="replace"), "offset": offset + len(output), "exit": None}
    if running or len(output) == LOG_BYTES:  # there may be more
        return answer
    if not (folder / "exit").exists():
        raise Refused(
            "the job ended without a result: the device lost power, or something killed it",
            "start it again; the bundle and the install are still there",
        )
    with (folder / "result").open("rb") as file:
        result = file.read(RESULT_BYTES).decode(errors="replace")
    return {**answer, "exit": int((folder / "exit").read_text()), "result": result}


def stop(job: str) -> None:
    """End a job, if it runs, and remove its folder."""
    folder = JOBS / job
    if _locked(folder / "lock"):
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((folder / "pid").read_text()), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _link(sha: str, place: Path) -> None:
    """Let a file of the cache be seen in another place, too, if it is still what was sent.

    Raises Refused where it is not; then it is gone.
    """
    file = FILES / sha
    if _digest(file) != sha:
        file.unlink(missing_ok=True)
        raise Refused(f"a file in {FILES} was changed", "run the same again: it is sent anew")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, place)
    except PermissionError:  # a FAT card has no links
        shutil.copy2(file, place)


def _digest(file: Path) -> str:
    """SHA-256 of a regular file, in hex; empty for a link or where there is none."""
    digest = hashlib.sha256()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _lock(path: Path) -> int:
    """Take the lock `path`; closing what is returned frees it. Raises BlockingIOError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _locked(path: Path) -> bool:
    """Whether a process holds the lock `path`."""
    try:
        os.close(_lock(path))
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _take_turn() -> None:
    """Be the one connection that copies and installs here; another's end is waited for."""
    while not _turn:
        try:
            _turn.append(_lock(CACHE / "lock"))
        except BlockingIOError:
            _check_client(CHECK_S)


def _run(command: list[str], what: str, fix: str) -> None:
    """Run a command to its end, or until the client is gone. Raises Refused where it fails."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert child.stdout is not None
    output = b""
    try:
        while True:
            select.select([child.stdout.fileno(), 0], [], [])
            _check_client(0)
            block = os.read(child.stdout.fileno(), 2**16)
            if not block:
                break
            output = (output + block)[-4000:]
    except Gone:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    if code := child.wait():
        text = output.decode(errors="replace")
        if os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise Refused(f"{what}: {(errors or lines or [f'exit {code}'])[-1]}", fix)


def _check_client(wait_s: float) -> None:
    """Raises Gone when the connection was closed; between two requests nothing else is read."""
    if select.select([0], [], [], wait_s)[0]:
        raise Gone


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb for verb in (hello, held, write, install, start, poll, stop)
}


def main() -> None:
    """Greet with the client's greeting, and answer until it is gone, or silent for too long."""
    greeting = sys.stdin.buffer.readline().strip(b"\n")
    machine = _answer("hello", {})
    _say(greeting, machine)
    while "answer" in machine and select.select([0], [], [], PATIENCE_S)[0]:
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            return
        request = json.loads(line)
        if "bytes" in request:
            count = request.pop("bytes")
            request["payload"] = sys.stdin.buffer.read(count)
            if len(request["payload"]) < count:
                return
        try:
            answer = _answer(request.pop("verb"), request)
        except Gone:
            return
        _say(b"", answer)


def _answer(verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a verb returns, or what is wrong and its fix. Raises Gone."""
    try:
        return {"answer": VERBS[verb](**arguments)}
    except Refused as refused:
        return dict(zip(("what", "fix"), refused.args, strict=True))
    except OSError as error:
        fix = "free some space there" if error.errno in FULL else ""
        return {"what": f"{error.strerror or error} in {CACHE}", "fix": fix}


def _say(prefix: bytes, answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(prefix + json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()

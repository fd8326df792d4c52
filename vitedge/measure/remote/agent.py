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
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GREETING = b"vitedge-agent "
PATIENCE_S = 120.0
"""Longest silence of the client before the agent ends."""
KEPT_S = 30 * 86400.0
"""What was not used for so long is removed from the cache."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitedge"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Refused(Exception):
    """A request that cannot be met: what is wrong, and how to mend it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class Gone(Exception):
    """The client is not there any more."""


def hello() -> dict[str, Any]:
    """What this machine is; what was left here and not used for long goes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for folder in (*CACHE.glob("venv-*"), *CACHE.glob("bundles/*"), *CACHE.glob("wheels/*")):
        if time.time() - folder.stat().st_mtime > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)
    for job in CACHE.glob("jobs/*"):
        if time.time() - job.stat().st_mtime > PATIENCE_S and not _alive(job):
            shutil.rmtree(job, ignore_errors=True)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "free_bytes": shutil.disk_usage(CACHE).free,
        "cache": str(CACHE),
    }


def held(shelf: str, key: str) -> dict[str, Any]:
    """Whether a parcel is here and whole, and how many bytes of each of its files are.

    If not, this client alone may copy until it has sealed it or is gone; others wait.
    """
    folder = CACHE / shelf / key
    if not folder.is_dir():
        _Copying.begin()
    if folder.is_dir():
        _Copying.end()
        os.utime(folder)
        return {"whole": True, "bytes": {}}
    part = _part(folder)
    sizes = {path.name: path.stat().st_size for path in part.iterdir()} if part.is_dir() else {}
    return {"whole": False, "bytes": sizes}


def write(shelf: str, key: str, name: str, offset: int, payload: bytes) -> None:
    """Put bytes into a file of a parcel that is under way; what lay behind `offset` goes."""
    _Copying.begin()
    part = _part(CACHE / shelf / key)
    part.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(part / Path(name).name, os.O_WRONLY | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(payload)
    except OSError as error:
        if error.errno in FULL:
            shutil.rmtree(part, ignore_errors=True)  # a device with a full disk is in trouble
        raise


def seal(shelf: str, key: str, files: dict[str, str]) -> list[str]:
    """Check the SHA-256 of every file of a parcel, and put it in its place if all are right.

    Returns the files that are not what was sent; they are gone.
    """
    folder = CACHE / shelf / key
    part = _part(folder)
    wrong = [name for name, sha in files.items() if _sha256(part / name) != sha]
    for name in wrong:
        (part / name).unlink(missing_ok=True)
    if not wrong and not folder.is_dir():
        for path in part.iterdir():
            if path.name not in files:
                path.unlink()
        part.rename(folder)
    if not wrong:
        _Copying.end()
    return wrong


def install(wheel: str, requirement: str, system: bool) -> str:
    """A venv with `requirement`, a parcel's wheel and its extras; returns its folder's name.

    `system` lets it see what the machine's own Python has: a Jetson's TensorRT.
    """
    key = hashlib.sha256(f"{wheel} {requirement} {sys.version}".encode()).hexdigest()[:16]
    venv = CACHE / f"venv-{key}"
    with _exclusive(CACHE / "install.lock"):
        if (venv / "complete").exists():
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
        package = f"{CACHE / 'wheels' / wheel}/{requirement}"
        wheels = CACHE / "offline"
        if wheels.is_dir():
            pip += ["--no-index", "--find-links", str(wheels)]
        _run(
            [*pip, package],
            f"pip could not install {requirement.partition('-')[0]}",
            f"is there a network? Without one, put the wheels it needs into {wheels} there",
        )
        (venv / "complete").touch()
    return venv.name


def start(job: str, venv: str, plan: dict[str, Any], links: dict[str, str]) -> None:
    """Begin a job that outlives this connection: `plan` is what `runner` reads.

    `links` are the parcels it sees: their path in the job's folder, and the key of each.
    """
    folder = CACHE / "jobs" / job
    if (folder / "pid").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for place, key in links.items():
        parcel, linked = CACHE / "bundles" / key, folder / place
        linked.mkdir(parents=True)
        for path in parcel.iterdir():
            try:
                os.link(path, linked / path.name)
            except PermissionError:  # a FAT card has no links
                shutil.copy2(path, linked / path.name)
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (folder / "lease").touch()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with (folder / "log").open("wb") as log:
        runner = subprocess.Popen(
            [
                str(CACHE / venv / "bin" / "python"),
                "-m",
                "vitedge.measure.remote.runner",
                str(folder),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock,),  # held until the runner is gone, however it goes
        )
    os.close(lock)
    (folder / "pid").write_text(str(runner.pid), encoding="utf-8")


def poll(job: str, offset: int) -> dict[str, Any]:
    """What a job has said since `offset`, and its exit code, None while it runs.

    Asking is what keeps it running.
    """
    folder = CACHE / "jobs" / job
    if not folder.is_dir():
        raise Refused("the job is gone: nobody asked for it for too long", "start it again")
    os.utime(folder / "lease")
    alive = _alive(folder)
    with (folder / "log").open("rb") as log:
        log.seek(offset)
        output = log.read(2**20)
    code = None
    if (folder / "exit").exists():
        code = int((folder / "exit").read_text(encoding="utf-8"))
    elif not alive:
        raise Refused(
            "the job ended without a result: the device lost power, or something killed it",
            "start it again; the bundle and the install are still there",
        )
    return {"log": output.decode(errors="replace"), "offset": offset + len(output), "exit": code}


def result(job: str) -> str:
    """What a finished job printed on stdout."""
    return (CACHE / "jobs" / job / "result").read_text(encoding="utf-8")


def stop(job: str) -> None:
    """End a job, if it runs, and remove its folder."""
    folder = CACHE / "jobs" / job
    if _alive(folder):
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((folder / "pid").read_text(encoding="utf-8")), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _part(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _alive(job: Path) -> bool:
    """Whether a job's runner holds its lock."""
    try:
        descriptor = os.open(job / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock `path` while the block runs; another's is waited for."""
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Wait for the lock `path`; closing what is returned frees it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            _check_client(0.2)


class _Copying:
    """The lock of the one connection that copies to this machine."""

    descriptor: int | None = None

    @classmethod
    def begin(cls) -> None:
        if cls.descriptor is None:
            cls.descriptor = _lock(CACHE / "copying.lock")

    @classmethod
    def end(cls) -> None:
        if cls.descriptor is not None:
            os.close(cls.descriptor)
            cls.descriptor = None


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
            if select.select([child.stdout], [], [], 0.2)[0]:
                block = os.read(child.stdout.fileno(), 2**16)
                if not block:
                    break
                output = (output + block)[-4000:]
            _check_client(0)
    except BaseException:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    finally:
        code = child.wait()
    if code:
        text = output.decode(errors="replace")
        if os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise Refused(f"{what}: {(errors or lines or [f'exit {code}'])[-1].strip()}", fix)


def _check_client(wait_s: float) -> None:
    """Raises Gone when the connection was closed; between two requests nothing else is read."""
    if select.select([0], [], [], wait_s)[0]:
        raise Gone


VERBS = {
    verb.__name__: verb for verb in (hello, held, write, seal, install, start, poll, result, stop)
}


def main() -> None:
    """Answer requests until the client is gone, or silent for too long."""
    _say(GREETING, hello())
    while select.select([0], [], [], PATIENCE_S)[0]:
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            return
        request = json.loads(line)
        count = request.pop("bytes", None)
        if count is not None:
            request["payload"] = sys.stdin.buffer.read(count)
            if len(request["payload"]) < count:
                return
        try:
            answer = {"answer": VERBS[request.pop("verb")](**request)}
        except Refused as refused:
            answer = {"what": refused.what, "fix": refused.fix}
        except Gone:
            return
        except OSError as error:
            answer = {"what": f"{error.strerror or error} in {CACHE}"}
            if error.errno in FULL:
                answer["fix"] = "free some space there"
        _say(b"", answer)


def _say(prefix: bytes, answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(prefix + json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()

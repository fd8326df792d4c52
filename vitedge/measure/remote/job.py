"""A `vitedge` command on other machines: copy, install, run there, and bring back what it says."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from vitedge.core.bundle import Bundle, sha256
from vitedge.core.errors import InputError, VitedgeError, error_line
from vitedge.core.process_error import ERROR, FIX, process_error
from vitedge.core.progress import LINES, Steps
from vitedge.core.runtime import is_ours, runtime_of
from vitedge.measure.latency.photographs import Photographs
from vitedge.measure.remote import wheel
from vitedge.measure.remote.address import Address
from vitedge.measure.remote.answers import Status
from vitedge.measure.remote.connection import PATIENCE, Connection, Patience, Stopped
from vitedge.measure.remote.upload import File, bundle_files, image_files, send

T = TypeVar("T")
Word = str | Bundle | Photographs
"""Of a command; a bundle or images stand for where they lie on the device."""
IMAGES = "images"
"""Where those lie in the job's folder; bundles lie in folders named by numbers."""


@dataclass(frozen=True)
class RemoteJob:
    """What a device gets, and the commands it runs."""

    wheel: File
    requirement: str
    """What pip installs: the wheel's name, and the extras of the runtimes."""
    system: bool
    """Whether the install sees the packages of the device's own Python."""
    files: dict[str, File]
    """By path in the job's folder."""
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a command said on one device; both where it broke a limit."""

    address: Address
    value: T | None = None
    error: VitedgeError | None = None


def run(
    addresses: Sequence[Address],
    command: Sequence[Word],
    read: Callable[[str], T],
    steps: Steps,
    patience: Patience = PATIENCE,
    *,
    builds: bool = True,
) -> list[Answer[T]]:
    """Run `vitedge` with the words of `command` on every device at once, in the order given.

    What it prints is for `read`, which raises ValueError where it is something else. Its bundles
    and images go to the device, and FP32 bundles with them; with `builds`, engines that wait for
    the device are built first. A device that fails does not disturb the others. Interrupted, what
    was started on the devices ends. Raises InputError for a runtime that is no device's to have.
    """
    with tempfile.TemporaryDirectory(prefix="vitedge-") as folder:
        job = _job(wheel.pack(Path(folder)), command, builds=builds)
        devices = [Connection(address, steps, patience) for address in addresses]
        with ThreadPoolExecutor(len(devices)) as pool:
            run_on = partial(_run_on, job=job, read=read, steps=steps)
            running = [pool.submit(run_on, device) for device in devices]
            try:
                while wait(running, timeout=0.2).not_done:  # not for good: Ctrl-C is to be seen
                    pass
            except BaseException:
                for device in devices:
                    device.interrupt()
                raise
        return [future.result() for future in running]


def _job(packed: Path, command: Sequence[Word], *, builds: bool) -> RemoteJob:
    """Lay out the job's folder: bundles that lie beside each other here do so there."""
    parents: dict[Path, int] = {}
    bundles: dict[str, Bundle] = {}

    def place(bundle: Bundle) -> str:
        path = bundle.path.resolve()
        where = f"{parents.setdefault(path.parent, len(parents))}/{path.name}"
        if where not in bundles:
            bundles[where] = bundle
            if reference := bundle.reference():
                place(reference)
        return where

    words: list[str] = []
    photographs: dict[str, File] = {}
    for word in command:
        if isinstance(word, Photographs):
            words.append(f"{IMAGES}/{word.name}")
            photographs |= image_files(word, words[-1])
        else:
            words.append(place(word) if isinstance(word, Bundle) else word)
    used = [runtime_of(word.manifest.target) for word in command if isinstance(word, Bundle)]
    for runtime in used:
        if not is_ours(runtime):
            raise InputError(
                f"{runtime.title} comes with another package, which is not put on a device",
                fix=f"run 'vitedge {command[0]}' on the device itself",
            )
    engines = [
        ("build", where)
        for where, bundle in bundles.items()
        if builds and bundle.manifest.build and bundle.manifest.build.state == "on the device"
    ]
    return RemoteJob(
        File(packed, sha256(packed)),
        f"{packed.name}[{','.join(sorted({runtime.extra for runtime in used}))}]",
        any(runtime.processor == "gpu" for runtime in used),
        {
            f"{place}/{name}": file
            for place, bundle in bundles.items()
            for name, file in bundle_files(bundle).items()
        }
        | photographs,
        (*engines, tuple(words)),
    )


def _run_on(
    device: Connection, job: RemoteJob, read: Callable[[str], T], steps: Steps
) -> Answer[T]:
    """The whole way on one device."""
    where = device.address.text
    try:
        steps.say(f"{where}: connecting")
        send({job.wheel.path.name: job.wheel, **job.files}, device, steps)
        steps.say(f"{where}: installing {job.requirement}")
        wheel, requirement = job.wheel.sha256, job.requirement
        venv = device.call("install", wheel=wheel, requirement=requirement, system=job.system)
        return _follow(device, job, venv, read, steps)
    except Stopped:
        return Answer(device.address, error=VitedgeError(f"{where}: interrupted"))
    except VitedgeError as error:
        return Answer(device.address, error=error)
    finally:
        device.close()


def _follow(
    device: Connection, job: RemoteJob, venv: str, read: Callable[[str], T], steps: Steps
) -> Answer[T]:
    """Start the job and follow it to its end; whatever happens, it is not left running."""
    where, lease_s = device.address.text, device.patience.lease_s
    job_id = uuid.uuid4().hex
    files = {place: file.sha256 for place, file in job.files.items()}
    plan = {"commands": job.commands, "environment": {LINES: "1"}, "lease_s": lease_s}
    steps.say(f"{where}: starting")
    try:
        device.call("start", job=job_id, venv=venv, files=files, plan=plan)
        status = Status(log="", offset=0, exit=None)
        rest, messages = "", []
        while status.exit is None:
            status = device.call("poll", job=job_id, offset=status.offset)
            *lines, rest = f"{rest}{status.log}".split("\n")
            messages += [line for line in lines if not line.startswith("[")]  # those are steps
            for line in lines:
                if not line.startswith((ERROR, FIX)):
                    steps.replay(line, where)
            if status.exit is None:
                device.pause()
    finally:
        try:
            device.call("stop", last=True, job=job_id)
        except VitedgeError:
            steps.note(f"{where}: not there to be told to stop; it does so within {lease_s:g} s")
    error = process_error(where, status.exit, messages) if status.exit else None
    try:
        value = read(status.result)
    except (ValueError, RecursionError) as wrong:
        cut = VitedgeError(
            f"{where}: what it measured was cut short ({error_line(wrong)})",
            fix="is its disk full?",
        )
        raise error or cut from None
    return Answer(device.address, value, error)

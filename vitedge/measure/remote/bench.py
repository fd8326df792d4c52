"""`vitedge bench` on other machines: copy, install, run there, and bring the report back."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core.bundle import Bundle, sha256
from vitedge.core.errors import InputError, VitedgeError, error_line
from vitedge.core.process_error import ERROR, FIX, process_error
from vitedge.core.progress import LINES, Steps
from vitedge.core.report import Report
from vitedge.core.runtime import is_ours, runtime_of
from vitedge.measure.latency.photographs import Photographs
from vitedge.measure.remote import wheel
from vitedge.measure.remote.address import Address
from vitedge.measure.remote.answers import Status
from vitedge.measure.remote.connection import PATIENCE, Connection, Patience, Stopped
from vitedge.measure.remote.upload import File, bundle_files, image_files, send

Word = str | Bundle | Photographs
"""Of a command; a bundle or images stand for where they lie on the device."""
IMAGES = "images"
"""Where those lie in the job's folder; bundles lie in folders named by numbers."""


@dataclass(frozen=True)
class BenchJob:
    """What a device gets, and the commands it runs."""

    wheel: File
    requirement: str
    """What pip installs: the wheel's name, and the extras of the runtimes."""
    system: bool
    """Whether the install sees the packages of the device's own Python."""
    files: dict[str, File]
    """By path in the job's folder."""
    commands: tuple[tuple[str, ...], ...]
    reports: int
    """How many the last command prints."""


@dataclass(frozen=True)
class DeviceResult:
    """What `vitedge bench` said on one device; both where it broke a limit."""

    address: Address
    reports: tuple[Report, ...] = ()
    """In the order of the bundles; empty where there are none."""
    error: VitedgeError | None = None


def bench(
    addresses: Sequence[Address],
    command: Sequence[Word],
    steps: Steps,
    patience: Patience = PATIENCE,
) -> list[DeviceResult]:
    """Run `vitedge` with the words of `command` on every device at once, in the order given.

    It prints reports as a JSON document. Its bundles and images go to the device, and FP32 bundles
    with them. A device that fails does not disturb the others. Interrupted, what was started on the
    devices ends. Raises InputError for a runtime that is no device's to have.
    """
    with tempfile.TemporaryDirectory(prefix="vitedge-") as folder:
        job = _job(wheel.pack(Path(folder)), command)
        devices = [Connection(address, steps, patience) for address in addresses]
        with ThreadPoolExecutor(len(devices)) as pool:
            running = [pool.submit(_bench_on, device, job, steps) for device in devices]
            try:
                while wait(running, timeout=0.2).not_done:  # not for good: Ctrl-C is to be seen
                    pass
            except BaseException:
                for device in devices:
                    device.interrupt()
                raise
        return [future.result() for future in running]


def _job(packed: Path, command: Sequence[Word]) -> BenchJob:
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
                fix="run 'vitedge bench' on the device itself",
            )
    builds = [
        ("build", where)
        for where, bundle in bundles.items()
        if bundle.manifest.build and bundle.manifest.build.state == "on the device"
    ]
    return BenchJob(
        File(packed, sha256(packed)),
        f"{packed.name}[{','.join(sorted({runtime.extra for runtime in used}))}]",
        any(runtime.processor == "gpu" for runtime in used),
        {
            f"{place}/{name}": file
            for place, bundle in bundles.items()
            for name, file in bundle_files(bundle).items()
        }
        | photographs,
        (*builds, tuple(words)),
        len(used) - ("--against" in command),  # which is timed, and has no report
    )


def _bench_on(device: Connection, job: BenchJob, steps: Steps) -> DeviceResult:
    """The whole way on one device."""
    where = device.address.text
    try:
        steps.say(f"{where}: connecting")
        send({job.wheel.path.name: job.wheel, **job.files}, device, steps)
        steps.say(f"{where}: installing {job.requirement}")
        wheel, requirement = job.wheel.sha256, job.requirement
        venv = device.call("install", wheel=wheel, requirement=requirement, system=job.system)
        return _run(device, job, venv, steps)
    except Stopped:
        return DeviceResult(device.address, error=VitedgeError(f"{where}: interrupted"))
    except VitedgeError as error:
        return DeviceResult(device.address, error=error)
    finally:
        device.close()


def _run(device: Connection, job: BenchJob, venv: str, steps: Steps) -> DeviceResult:
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
        reports = _reports(status.result)
        if len(reports) != job.reports:
            raise ValueError(f"{len(reports)} reports for {job.reports} bundles")
    except (ValueError, RecursionError) as wrong:
        cut = VitedgeError(
            f"{where}: what it measured was cut short ({error_line(wrong)})",
            fix="is its disk full?",
        )
        raise error or cut from None
    return DeviceResult(device.address, reports, error)


def _reports(result: str) -> tuple[Report, ...]:
    """Those that `vitedge bench --json` printed: one, or several. Raises ValueError."""
    parts = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    if "reports" in parts:
        return msgspec.json.decode(parts["reports"], type=tuple[Report, ...])
    return (msgspec.json.decode(result, type=Report),)

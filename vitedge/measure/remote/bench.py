"""`vitedge bench` on other machines: copy, install, run there, and bring the report back."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, LimitError, UnavailableError, VitedgeError
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.core.runtime import is_ours, runtime_of
from vitedge.measure.remote import wheel
from vitedge.measure.remote.address import Address
from vitedge.measure.remote.connection import PATIENCE, Connection, Patience, Stopped
from vitedge.measure.remote.parcels import Parcel, bundle_parcel, file_parcel, send

ERROR, FIX = "error: ", "  fix: "


@dataclass(frozen=True)
class BenchJob:
    """What a device gets, and the commands it runs."""

    wheel: Parcel
    extras: tuple[str, ...]
    system: bool
    """Whether the install sees the packages of the device's own Python."""
    parcels: dict[str, Parcel]
    """By path in the job's folder."""
    commands: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class DeviceResult:
    """What `vitedge bench` said on one device; both where it broke a limit."""

    address: Address
    reports: tuple[Report, ...] = ()
    """In the order of the bundles; empty where there are none."""
    error: VitedgeError | None = None


def bench(
    addresses: Sequence[Address],
    bundles: Sequence[Bundle],
    rival: Bundle | None,
    options: Sequence[str],
    steps: Steps,
    patience: Patience = PATIENCE,
) -> list[DeviceResult]:
    """Run `vitedge bench BUNDLES OPTIONS --json` on every device at once, in the order given.

    `rival` is the other artifact of `--against`, which goes along as FP32 bundles do. A device
    that fails does not disturb the others. Interrupted, what was started on the devices ends.
    """
    with tempfile.TemporaryDirectory(prefix="vitedge-") as folder:
        name, content = wheel.pack()
        packed = Path(folder) / name
        packed.write_bytes(content)
        job = _job(file_parcel(packed, "wheels"), bundles, rival, options)
        stop = threading.Event()
        with ThreadPoolExecutor(len(addresses)) as pool:
            running = [
                pool.submit(_bench_on, address, job, steps, stop, patience) for address in addresses
            ]
            try:
                while wait(running, timeout=0.2).not_done:
                    pass
            except BaseException:
                stop.set()
                raise
        return [future.result() for future in running]


def _job(
    packed: Parcel, bundles: Sequence[Bundle], rival: Bundle | None, options: Sequence[str]
) -> BenchJob:
    """Lay out the job's folder: bundles that lie beside each other here do so there."""
    parents: list[Path] = []
    parcels: dict[str, Parcel] = {}
    builds: list[tuple[str, ...]] = []

    def place(bundle: Bundle) -> str:
        path = bundle.path.resolve()
        if path.parent not in parents:
            parents.append(path.parent)
        where = f"{parents.index(path.parent)}/{path.name}"
        if where in parcels:
            return where
        parcels[where] = bundle_parcel(bundle)
        if bundle.manifest.build and bundle.manifest.build.state == "on the device":
            builds.append(("build", where))
        reference = bundle.reference()
        if reference is not None and reference.path.resolve() != path:
            place(reference)
        return where

    placed = [place(bundle) for bundle in bundles]
    against = ["--against", place(rival)] if rival else []
    used = [runtime_of(bundle.manifest.target) for bundle in [*bundles, rival] if bundle]
    for runtime in used:
        if not is_ours(runtime):
            raise InputError(
                f"{runtime.title} comes with another package, which is not put on a device",
                fix="run 'vitedge bench' on the device itself",
            )
    return BenchJob(
        packed,
        tuple(sorted({runtime.extra for runtime in used})),
        any(runtime.processor == "gpu" for runtime in used),
        parcels,
        (*builds, ("bench", *placed, *against, *options, "--json")),
    )


def _bench_on(
    address: Address, job: BenchJob, steps: Steps, stop: threading.Event, patience: Patience
) -> DeviceResult:
    """The whole way on one device."""
    device = Connection(address, steps, stop, patience)
    try:
        steps.say(f"{address.text}: connecting")
        for parcel in (job.wheel, *job.parcels.values()):
            send(parcel, device, steps)
        requirement = f"{job.wheel.name}[{','.join(job.extras)}]"
        steps.say(f"{address.text}: installing {requirement}")
        venv = device.call(
            "install", wheel=job.wheel.key, requirement=requirement, system=job.system
        )
        return _run(device, job, venv, steps, patience)
    except Stopped:
        return DeviceResult(address, error=VitedgeError(f"{address.text}: interrupted"))
    except VitedgeError as error:
        return DeviceResult(address, error=error)
    finally:
        device.close()


def _run(
    device: Connection, job: BenchJob, venv: str, steps: Steps, patience: Patience
) -> DeviceResult:
    """Start the job and follow it to its end; whatever happens, it is not left running."""
    where = device.address.text
    job_id = uuid.uuid4().hex
    plan = {"commands": job.commands, "lease_s": patience.lease_s}
    links = {place: parcel.key for place, parcel in job.parcels.items()}
    steps.say(f"{where}: starting")
    try:
        device.call("start", job=job_id, venv=venv, plan=plan, links=links)
        offset, rest, code = 0, "", None
        messages: list[str] = []
        while code is None:
            status = device.call("poll", job=job_id, offset=offset)
            offset, code = status["offset"], status["exit"]
            *lines, rest = f"{rest}{status['log']}".split("\n")
            messages += _show(lines, where, steps)
            if code is None:
                device.pause()
        error = _error(where, code, messages) if code else None
        printed = device.call("result", job=job_id)
    finally:
        try:
            device.call_last("stop", job=job_id)
        except VitedgeError:
            steps.note(
                f"{where}: not there to be told to stop; it does so within {patience.lease_s:g} s"
            )
    if error and not printed:
        raise error
    try:
        document = json.loads(printed)
        reports = msgspec.convert(document.get("reports", [document]), tuple[Report, ...])
    except (ValueError, msgspec.ValidationError):
        cut = VitedgeError(f"{where}: what it measured was cut short", fix="is its disk full?")
        raise error or cut from None
    return DeviceResult(device.address, reports, error)


def _show(lines: Sequence[str], where: str, steps: Steps) -> list[str]:
    """Show the steps and notes among the lines of a job's log; returns those that are no steps."""
    messages = []
    for line in lines:
        if not line.startswith("["):
            messages.append(line)
        if not line.startswith((ERROR, FIX)):
            steps.replay(line, where)
    return messages


def _error(where: str, code: int, messages: Sequence[str]) -> VitedgeError:
    """The error that a job ended with, of the kind that its exit code says."""
    what = next((line.removeprefix(ERROR) for line in messages if line.startswith(ERROR)), "")
    fix = next((line.removeprefix(FIX) for line in messages if line.startswith(FIX)), "")
    if code < 0:
        what = what or f"killed by {signal.Signals(-code).name}; is there memory enough?"
    kinds = (LimitError, InputError, UnavailableError)
    kind = next((kind for kind in kinds if what and kind.exit_code == code), VitedgeError)
    last = next((line for line in reversed(messages) if line.strip()), f"exit code {code}")
    return kind(f"{where}: {what or last}", fix=fix)

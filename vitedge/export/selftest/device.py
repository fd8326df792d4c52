"""The steps that are taken on a device: the same command there, on what was built here."""

from __future__ import annotations

import msgspec

from vitedge.core import report as reports
from vitedge.core.errors import VitedgeError
from vitedge.core.progress import Steps
from vitedge.export.selftest import record as records
from vitedge.export.selftest.record import Selftest
from vitedge.export.selftest.request import Job
from vitedge.measure.remote.address import Address
from vitedge.measure.remote.job import Word
from vitedge.measure.remote.job import run as run_on


def measured_there(job: Job, record: Selftest, address: Address, steps: Steps) -> Selftest:
    """`record` with the steps that the device took; what it measured lies beside the artifacts.

    The device keeps a folder of its own for this selftest and goes on there, whichever side was
    killed. Raises what keeps it from ending; the record says what has passed until then.
    """
    subjects = []
    for subject in job.work.subjects:
        try:
            job.work.bundle(subject)
        except VitedgeError:  # it was not built, as its step says
            continue
        subjects.append(subject)
    waiting = record.having("waiting")
    if not subjects or not waiting:
        return _left(record, "nothing was built to measure")
    bundles = [job.work.bundle(subject) for subject in subjects]
    command: list[Word] = ["selftest", *bundles, "--output", f"../../selftest-{record.run}"]
    command += [*(["--quick"] if record.quick else []), "--json"]
    (answer,) = run_on([address], command, _read, steps, builds=False)
    there = answer.value
    if there is None:
        raise answer.error or VitedgeError(f"{address.text}: it says nothing")
    known = {step.name for step in waiting}
    for step in there.steps:
        if step.name in known:
            record = record.with_step(step)
    merged = tuple(
        reports.merge_from_device(bundle, measured, address.text, address.slug)
        for bundle, measured in zip(bundles, there.reports, strict=False)
        if measured.artifact == bundle.manifest.name
    )
    record = msgspec.structs.replace(record, reports=merged, device_host=there.host)
    records.write(record, job.request.folder)
    return _left(record, "it was not measured on the device")


def _left(record: Selftest, why: str) -> Selftest:
    """`record`, in which nothing waits any more."""
    for step in record.having("waiting"):
        record = record.with_step(msgspec.structs.replace(step, status="cannot run", says=why))
    return record


def _read(result: str) -> Selftest:
    """What `vitedge selftest --json` printed. Raises ValueError."""
    there = msgspec.json.decode(result, type=Selftest)
    if there.exit_code is None:
        raise ValueError("it has not ended")
    return there

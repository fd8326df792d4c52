"""Runs a selftest step by step; each is written down as it ends, so that a killed one goes on."""

from __future__ import annotations

import logging
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TextIO

import msgspec

from vitedge.core import report as reports
from vitedge.core.errors import InputError, VitedgeError, error_line
from vitedge.core.progress import Steps
from vitedge.export.selftest import record as records
from vitedge.export.selftest import subjects
from vitedge.export.selftest.device import measured_there
from vitedge.export.selftest.plan import Step
from vitedge.export.selftest.record import BUNDLES, LOGS, PAGE, Selftest, StepRecord
from vitedge.export.selftest.request import Job
from vitedge.export.selftest.work import Outcome, Work
from vitedge.measure.latency.lock import locked

LOCK = ".lock"
LOCK_S = 600.0
"""Longest wait for another selftest of the same folder: one that a device has not ended yet."""


def run(job: Job, steps: Steps) -> Selftest:
    """Do what waits, and return the record of it all.

    A step that fails costs no other but those that take what it makes. Raises InputError where the
    folder cannot be written to, or another selftest keeps it.
    """
    request = job.request
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "pass another `output`"
        raise InputError(f"cannot write to {request.folder}: {error.strerror}", fix=fix) from error
    lock = request.folder / LOCK
    with locked(lock, steps.note, LOCK_S, f"tests itself in {request.folder}") as alone:
        if not alone:
            raise InputError(
                f"another selftest runs in {request.folder}", fix="wait for it, or use `output`"
            )
        record = _cleared(job)
        records.write(record, request.folder)
        subjects.copy(request.bundles, job.work.artifacts)
        for message in forecast(record):
            steps.note(message)
        for step in job.steps:
            if request.address and not step.makes:
                continue
            record = _next(job, record, step, steps)
        if request.address:
            record = measured_there(job, record, request.address, steps)
        else:
            record = msgspec.structs.replace(record, reports=_reports(job.work))
        record = record.ended()
        records.write(record, request.folder)
    return record


def _cleared(job: Job) -> Selftest:
    """The record to begin with; without a step that passed, what lies in the folder goes."""
    folder, record = job.request.folder, job.record
    missing = {
        step.record.name
        for step in job.steps
        if step.makes and not all(_is_there(job.work, step.record.name))
    }
    gone = {step.record.name for step in job.steps if {step.after, step.record.name} & missing}
    fresh = {step.record.name: step.record for step in job.steps}
    steps = tuple(fresh[step.name] if step.name in gone else step for step in record.steps)
    record = msgspec.structs.replace(record, steps=steps)
    if not record.having("passed"):
        for name in (BUNDLES, LOGS):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / PAGE).unlink(missing_ok=True)
    return record


def _is_there(work: Work, name: str) -> Iterator[bool]:
    """Whether each artifact that the build `name` makes is there and sound."""
    for subject in work.subjects:
        if name == f"build {subject.model} {subject.build}":
            try:
                yield bool(work.bundle(subject))
            except VitedgeError:
                yield False


def forecast(record: Selftest) -> Iterator[str]:
    """What is going to be done, how long that takes, and what cannot be."""
    waiting, kept = record.having("waiting"), record.having("passed")
    where = f" and on {record.device}" if record.device else ""
    yield (
        f"selftest of {record.target}: {len(waiting)} steps here{where}, "
        f"about {record.remaining_s / 60:.1f} min"
        + (f"; {len(kept)} passed before, and are not repeated" if kept else "")
    )
    for step in record.having("cannot run"):
        yield f"cannot run here: {step.name}: {step.says}"


def _next(job: Job, record: Selftest, step: Step, steps: Steps) -> Selftest:
    """The record after `step`, which is written down; one that does not wait is passed over."""
    name = step.record.name
    states = {other.name: other for other in record.steps}
    if states[name].status != "waiting":
        return record
    if step.after and states[step.after].status != "passed":
        why = f"'{step.after}' has not passed"
        outcome = msgspec.structs.replace(step.record, status="cannot run", says=why)
    else:
        outcome = _run(job, step, steps)
    record = record.with_step(outcome)
    records.write(record, job.request.folder)
    steps.note(line(outcome))
    return record


def line(step: StepRecord) -> str:
    """A step in one line."""
    took = f" ({step.took_s:.1f} s)" if step.took_s is not None else ""
    return f"{step.status}: {step.name}: {step.says}{took}"


def _run(job: Job, step: Step, steps: Steps) -> StepRecord:
    name = step.record.name
    steps.say(name)
    path = job.request.folder / LOGS / (re.sub(r"[^A-Za-z0-9._]+", "-", name) + ".log")
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", errors="replace") as log, _logging_to(log):
        job.work.steps = _Logged(steps, log)
        start = perf_counter()
        fix = ""
        try:
            status, outcome = "passed", step.run(job.work)
        except VitedgeError as error:
            status, outcome, fix = "failed", Outcome(error.what), error.fix
            traceback.print_exc(file=log)
        except Exception as error:  # whatever is wrong here is what a selftest is for
            status = "failed"
            outcome = Outcome(f"{type(error).__name__}: {error_line(error)}")
            traceback.print_exc(file=log)
        took_s = perf_counter() - start
        print(f"{status}: {outcome.says}", file=log)
    return msgspec.structs.replace(
        step.record,
        status=status,
        says=outcome.says,
        fix=fix,
        figures=outcome.figures,
        took_s=took_s,
    )


class _Logged(Steps):
    """Shows steps where `shown` does; what is said stays in a log, and nowhere else."""

    def __init__(self, shown: Steps, log: TextIO) -> None:
        super().__init__(None)
        self._shown, self._log = shown, log

    def __call__(self, step: str, done: float, total: float, note: str = "") -> None:
        self._shown(step, done, total, note)

    def say(self, step: str) -> None:
        print(step, file=self._log, flush=True)
        self._shown.say(step)

    def note(self, text: str) -> None:
        print(text, file=self._log, flush=True)


@contextmanager
def _logging_to(log: TextIO) -> Iterator[None]:
    """Let what is logged meanwhile go there, too."""
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _reports(work: Work) -> tuple[reports.Report, ...]:
    """What was measured of each artifact that is there."""
    merged = []
    for subject in work.subjects:
        try:
            merged.append(reports.of_bundle(work.bundle(subject)))
        except VitedgeError:  # it was not built
            continue
    return tuple(report for report in merged if report)

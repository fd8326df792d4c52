"""What a selftest was asked to do, all of it resolved, and what was done of it before."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from vitedge import __version__
from vitedge.core import catalog
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.host import fingerprint
from vitedge.core.machine import describe_machine
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.export.selftest import record as records
from vitedge.export.selftest import subjects
from vitedge.export.selftest.plan import Step, plan
from vitedge.export.selftest.record import Selftest
from vitedge.export.selftest.work import Work
from vitedge.measure.remote.address import Address


@dataclass(frozen=True)
class Request:
    """What `vitedge selftest` was asked to do."""

    bundles: tuple[Bundle, ...]
    """Empty: artifacts are built."""
    target: str
    """Its name or its file; empty: that of the artifacts."""
    address: Address | None
    """Where to measure; None: here."""
    folder: Path
    quick: bool
    force: bool


@dataclass(frozen=True)
class Job:
    """A request, all of it resolved, and the record that it begins with."""

    request: Request
    work: Work
    steps: Sequence[Step]
    record: Selftest


def prepare(request: Request, steps: Steps) -> Job:
    """What a selftest would do, with what was done of it already. Raises InputError."""
    host = describe_machine(threads=0)
    if request.bundles:
        target = request.bundles[0].manifest.target
        for bundle in request.bundles:
            if bundle.manifest.target != target:
                raise InputError(
                    f"{bundle.path} is for '{bundle.manifest.target.name}', and "
                    f"{request.bundles[0].path} for '{target.name}'",
                    fix="pass `artifacts` of one target",
                )
        if request.target not in ("", target.name):
            raise InputError(
                f"`target={request.target!r}` is not that of the artifacts, '{target.name}'",
                fix="drop `target`",
            )
        taken = subjects.given(request.bundles)
    else:
        target = catalog.find_target(request.target, host)
        models = subjects.MODELS[:1] if request.quick else subjects.MODELS
        taken = subjects.planned(target, models)
    work = Work(request.folder, target, request.target or target.name, host, taken, steps)
    planned = plan(target, host, taken, quick=request.quick)
    if request.address:  # what it can run is for the device to say
        planned = [step if step.makes else _on_device(step) for step in planned]
    bound = _bound(request, target, fingerprint(host))
    record = Selftest(
        version=__version__,
        target=target.name,
        device=request.address.text if request.address else "",
        quick=request.quick,
        host=host,
        fingerprint=fingerprint(host),
        bound=bound,
        run=uuid.uuid4().hex[:12],
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        steps=tuple(step.record for step in planned),
    )
    return Job(request, work, planned, _resumed(record, request, planned))


def _on_device(step: Step) -> Step:
    waiting = msgspec.structs.replace(step.record, status="waiting", says="", fix="")
    return replace(step, record=waiting)


def _bound(request: Request, target: Target, machine: str) -> str:
    """Hash of all that the steps depend on."""
    parts = (
        *(__version__, machine, target, request.quick),
        request.address.text if request.address else "",
        [bundle.digests[name] for bundle in request.bundles for name in sorted(bundle.digests)],
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]


def _resumed(fresh: Selftest, request: Request, planned: Sequence[Step]) -> Selftest:
    """`fresh` with the steps that passed before, where nothing they depend on has changed."""
    before = records.read(request.folder)
    folder = request.folder
    if before is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is no folder, or holds other things than a selftest",
            fix="pass another `output`, a folder that is empty or not there",
        )
    if before is None or request.force or before.bound != fresh.bound:
        return fresh
    passed = {step.name: step for step in before.having("passed")}
    kept = {name: step for name, step in passed.items() if name in _names(planned)}
    lost = {step.record.name for step in planned if step.makes and step.record.name not in kept}
    for step in planned:
        if step.after in lost:
            kept.pop(step.record.name, None)
    steps = tuple(kept.get(step.name, step) for step in fresh.steps)
    return msgspec.structs.replace(
        fresh, run=before.run, started_at=before.started_at, steps=steps, reports=before.reports
    )


def _names(planned: Sequence[Step]) -> set[str]:
    return {step.record.name for step in planned}

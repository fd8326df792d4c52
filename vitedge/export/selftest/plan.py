"""Every step of a selftest in one table, and which of them this machine can run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any, Literal

from vitedge.core import catalog
from vitedge.core.errors import VitedgeError
from vitedge.core.fp8 import fp8_target
from vitedge.core.host import Host
from vitedge.core.runtime import Examinable, Occupiable, requirement, runtime_of
from vitedge.core.spec import QUANTIZED, Target
from vitedge.export.selftest import builds, proofs, refusals
from vitedge.export.selftest.record import Need, StepRecord
from vitedge.export.selftest.subjects import DIGITS, Subject
from vitedge.export.selftest.work import Outcome, Work

Per = Literal["export", "artifact", "quantized", "model", "largest model", "once"]
"""What a step is taken for; `once`: for the first artifact."""
_EXPORTER = ("torch", "onnx", "onnxscript", "safetensors")


@dataclass(frozen=True)
class Kind:
    """A row of the table."""

    name: str
    needs: Need
    per: Per
    digits_s: float
    others_s: float
    """Estimated, of any other model than digits."""
    run: Callable[[Work, Any], Outcome]
    quick: bool = True
    """Whether a quick selftest has it."""


KINDS = (
    Kind("build", "exporter", "export", 7, 12, builds.build),
    Kind("engine of", "gpu", "artifact", 30, 90, builds.engine),
    Kind("parity of", "runtime", "artifact", 0.3, 0.5, proofs.parity),
    Kind("validate", "runtime", "artifact", 1.5, 1, proofs.validate),
    Kind("what is executed of", "runtime", "quantized", 0.3, 1, proofs.coverage),
    Kind("what is compiled of", "nothing", "quantized", 0.1, 0.1, proofs.compiled),
    Kind("refuse another machine's", "runtime", "once", 0.4, 0.4, refusals.other_machine),
    Kind("refuse another version's", "runtime", "once", 0.4, 0.4, refusals.other_version),
    Kind("refuse a damaged", "runtime", "once", 0.4, 0.4, refusals.damaged),
    Kind("refuse a changed", "nothing", "once", 0.4, 0.4, refusals.changed),
    Kind("refuse a batch outside", "runtime", "once", 0.2, 0.2, refusals.batch_outside),
    Kind("refuse too little device memory", "gpu", "once", 5, 5, refusals.too_little_memory),
    Kind("bench", "runtime", "model", 12, 19, proofs.bench),
    Kind("cold start of", "runtime", "model", 2.5, 3.5, proofs.cold_start),
    Kind("drift of", "runtime", "largest model", 62, 62, proofs.drift, quick=False),
)


@dataclass(frozen=True)
class Step:
    """One step of one selftest."""

    record: StepRecord
    run: Callable[[Work], Outcome]
    after: str = ""
    """The step that makes what it takes; empty: that is there."""
    makes: bool = False
    """Whether others take what it makes."""


def plan(target: Target, host: Host, subjects: Sequence[Subject], *, quick: bool) -> list[Step]:
    """Every step for `subjects`, in order; what cannot run on `host` says why."""
    return [
        step
        for kind in KINDS
        if kind.quick or not quick
        for step in _steps(kind, target, host, subjects)
    ]


def _steps(kind: Kind, target: Target, host: Host, subjects: Sequence[Subject]) -> Iterator[Step]:
    for taken, argument, name in _taken(kind, target, subjects):
        why, fix = _obstacle(kind, target, host, taken)
        first = taken[0]
        record = StepRecord(
            name=f"{kind.name} {name}",
            needs=kind.needs,
            status="cannot run" if why else "waiting",
            says=why,
            fix=fix,
            estimated_s=kind.digits_s if first.model == DIGITS else kind.others_s,
        )
        makes = kind.per == "export"
        after = "" if makes or not first.build else f"build {first.model} {first.build}"
        yield Step(record, partial(_run, kind, argument), after, makes)


def _run(kind: Kind, argument: object, work: Work) -> Outcome:
    return kind.run(work, argument)


def _taken(
    kind: Kind, target: Target, subjects: Sequence[Subject]
) -> Iterator[tuple[list[Subject], object, str]]:
    """What a kind of step is taken for: artifacts, the function's argument, and its name."""
    models = list(dict.fromkeys(subject.model for subject in subjects))
    by_log = _by_log(target)
    if kind.run in (proofs.coverage, proofs.compiled) and by_log != (kind.run is proofs.compiled):
        return
    if kind.run is builds.engine and runtime_of(target).processor != "gpu":
        return
    if kind.per == "export":
        for model, build in dict.fromkeys((s.model, s.build) for s in subjects if s.build):
            made = [s for s in subjects if (s.model, s.build) == (model, build)]
            yield made, made, f"{model} {build}"
    elif kind.per in ("artifact", "quantized"):
        for subject in subjects:
            if kind.per == "artifact" or subject.precision in QUANTIZED:
                yield [subject], subject, subject.title
    elif kind.per == "once":
        yield [subjects[0]], subjects[0], subjects[0].title
    else:
        for model in models[-1:] if kind.per == "largest model" else models:
            group = [s for s in subjects if s.model == model]
            yield group, group, model


def _by_log(target: Target) -> bool:
    """Whether what becomes of INT8 is read from a compiler's log: a runtime that does not tell."""
    runtime = runtime_of(target)
    return runtime.processor == "gpu" and not isinstance(runtime, Examinable)


def _obstacle(
    kind: Kind, target: Target, host: Host, subjects: Sequence[Subject]
) -> tuple[str, str]:
    """Why a kind of step cannot run here, and what to do about it; empty where it can."""
    runtime = runtime_of(target)
    if kind.needs == "exporter":
        missing = [name for name in _EXPORTER if not _installed(name)]
        if missing:
            what = f"not installed: {', '.join(missing)}"
            return what, "pip install 'vitedge[export]', or pass `artifacts` that were built"
        if any(subject.precision == "fp8" for subject in subjects):
            try:
                fp8_target(target, host)
            except VitedgeError as error:
                return error.what, error.fix
    if kind.needs in ("runtime", "gpu"):
        if needs := catalog.lacks_hardware(target, host):
            return f"needs {needs}", "run it on such a machine, or pass `device='ssh://…'`"
        if needs := catalog.lacks_version(target, host):
            return f"takes {needs}", "install such a version"
        if runtime.packages and target.runtime not in host.runtimes:
            return f"{runtime.title} is not installed", f"pip install '{requirement(runtime)}'"
        if all(subject.precision == "bf16" for subject in subjects) and (
            needs := catalog.lacks_bf16(target, host)
        ):
            return f"BF16 needs {needs}", ""
    if kind.needs == "gpu" and runtime.processor != "gpu":
        return f"{runtime.title} computes on no GPU", ""
    return _not_told(kind, target, host), ""


def _not_told(kind: Kind, target: Target, host: Host) -> str:
    """What of its runtime a step takes that is not there; empty where it is."""
    runtime = runtime_of(target)
    if kind.run is proofs.coverage and not isinstance(runtime, Examinable):
        return f"{runtime.title} does not tell what it executes"
    if kind.run is refusals.too_little_memory and not isinstance(runtime, Occupiable):
        return f"the memory that {runtime.title} computes in cannot be taken"
    if kind.run is refusals.other_version and target.runtime not in host.runtimes:
        return f"{runtime.title} comes in no package, so it has no version"
    return ""


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True

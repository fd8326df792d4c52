"""The job of `vitedge bench`: what was asked for, in an order that disturbs the timing least.

Timing goes first, then energy, then processes of their own; and all is written down at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from vitedge.core import host, report
from vitedge.core.bundle import REPORT, Bundle, open_bundle
from vitedge.core.errors import InputError, nearest
from vitedge.core.host import Host
from vitedge.core.machine import ROOT, describe_machine, usable_cores
from vitedge.core.measurements import Drift
from vitedge.core.progress import Steps
from vitedge.core.runtime import Session, runtime_of
from vitedge.measure import latency
from vitedge.measure.accuracy import parity
from vitedge.measure.latency import clock, scenarios
from vitedge.measure.latency.cold_start import cold_starts
from vitedge.measure.latency.conditions import Watch
from vitedge.measure.latency.drift import CONFIDENCE, trend
from vitedge.measure.latency.energy import measure_energy
from vitedge.measure.latency.lock import exclusive_timing
from vitedge.measure.latency.single_stream import (
    SingleStreamRun,
    latency_of,
    recommend_among,
    run_single_stream,
)

Scenario = Literal["single-stream", "offline"]
Swept = Literal["threads", "batch"]
COLD_SHARE = 0.5
"""Of the duration: what further cold starts may take."""


@dataclass(frozen=True)
class BenchRequest:
    """What `vitedge bench` was asked to do."""

    duration_s: float
    """Of each measurement of each artifact."""
    against: str = "fp32"
    """Each bundle's own FP32 bundle where that is at hand; or another artifact's path."""
    scenarios: tuple[str, ...] = ("single-stream",)
    sweeps: tuple[str, ...] = ()
    batch: int | None = None
    threads: int = 0
    """0: what the target says, or every core this process may use."""
    streams: int = 0
    """Of `offline`, which alone has them; 0: several, compared."""

    @property
    def sections(self) -> tuple[str, ...]:
        """Those of a report that this measures."""
        single = ("latency", "drift") if "single-stream" in self.scenarios else ()
        offline = ("offline",) if "offline" in self.scenarios else ()
        swept = (f"sweep_{name}" for name in self.sweeps)
        return (*single, *offline, *swept, "energy", "cold_start", "memory", "size", "conditions")

    def measured(self, merged: Mapping[str, Any]) -> dict[str, Any]:
        """A merged report without what this did not measure."""
        names = (*self.sections, "artifact", "model", "target", "precision", "host")
        return {name: merged[name] for name in names if name in merged}


def check(request: BenchRequest, bundles: Sequence[Bundle]) -> None:
    """Raises InputError for what cannot be done, before anything runs."""
    clock.check_duration(request.duration_s)
    for option, names, known in (
        ("--scenario", request.scenarios, get_args(Scenario)),
        ("--sweep", request.sweeps, get_args(Swept)),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"unknown {option} '{name}'", fix=nearest(name, known))
    if request.against != "fp32" and "single-stream" not in request.scenarios:
        raise InputError(
            "--against is compared in single-stream alone", fix="add --scenario single-stream"
        )
    if request.streams and "offline" not in request.scenarios:
        raise InputError(
            "--streams does nothing without --scenario offline", fix="add --scenario offline"
        )
    if request.threads and request.streams > request.threads:
        raise InputError(
            f"--threads {request.threads} are too few for --streams {request.streams}",
            fix="pass one thread for each stream, or more",
        )
    for name in ("threads", "batch"):
        if name in request.sweeps and getattr(request, name):
            raise InputError(
                f"--sweep {name} and --{name} exclude each other", fix=f"drop --{name}"
            )
    for bundle in bundles:
        processor = runtime_of(bundle.manifest.target).processor
        if "threads" in request.sweeps and processor != "cpu":
            raise InputError(
                f"{bundle.path} does not run on the CPU, so --sweep threads says nothing of it",
                fix="drop --sweep threads",
            )
        fixed = bundle.manifest.inputs[0].shape[0] if bundle.manifest.inputs else None
        if "batch" in request.sweeps and isinstance(fixed, int):
            raise InputError(
                f"{bundle.path} is fixed at batch {fixed}, so there is nothing to sweep",
                fix="export it with --batch dynamic",
            )


def bench_bundles(
    bundles: Sequence[Bundle],
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, latency.LatencySummary]]:
    """Measure bundles as asked, with memory and cold start, and recommend a precision again.

    `others` are further sessions to time in the same run, by name. Returns the merged report of
    each bundle, and the latency of each of `others`. Raises InputError, UnavailableError.
    """
    check(request, bundles)
    for bundle in bundles:
        report.check_writable(bundle)
    with exclusive_timing(steps.note):
        return _bench(bundles, steps, request, others or {})


def _bench(
    bundles: Sequence[Bundle],
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session],
) -> tuple[list[dict[str, Any]], dict[str, latency.LatencySummary]]:
    rival = None if request.against == "fp32" else open_bundle(Path(request.against))
    machine = describe_machine(request.threads or usable_cores())
    watch = Watch(ROOT)
    hosts = [report.host_of(bundle, machine) for bundle in bundles]
    measured = [
        _stale(bundle, bundle_host) for bundle, bundle_host in zip(bundles, hosts, strict=True)
    ]
    extras: dict[str, latency.LatencySummary] = {}
    if "single-stream" in request.scenarios:
        run = run_single_stream(
            bundles,
            steps,
            rival=rival,
            duration_s=request.duration_s,
            batch=request.batch,
            threads=request.threads,
            others=others,
            on_round=watch.look,
        )
        extras = run.others
        for index, sections in enumerate(measured):
            sections["latency"] = latency_of(run, index, request.against)
            sections["drift"] = _drift(run, index, watch)
    for bundle, sections in zip(bundles, measured, strict=True):
        sections.update(_scenarios(bundle, request, steps, watch))
    conditions = watch.conditions(machine)
    for bundle, bundle_host, sections in zip(bundles, hosts, measured, strict=True):
        name = bundle.manifest.name
        sections["energy"] = measure_energy(
            bundle,
            request.duration_s,
            ROOT,
            batch=request.batch,
            threads=request.threads,
            on_progress=partial(_show, steps, f"energy of {name}"),
        )
        steps.say(f"cold start and memory of {name}")
        share_s = request.duration_s * COLD_SHARE
        sections["cold_start"], sections["memory"] = cold_starts(
            bundle.path, request.threads, share_s
        )
        sections.update(parity.sections(bundle, request.threads))
        sections["size"] = report.size(bundle, bundle.reference())
        digits = host.fingerprint(bundle_host)
        sections["conditions"] = msgspec.structs.replace(conditions, fingerprint=digits)
        sections["host"] = bundle_host
    reports = [
        report.merge(bundle, **sections) for bundle, sections in zip(bundles, measured, strict=True)
    ]
    if "single-stream" in request.scenarios:
        reports = recommend_among(bundles)
    return reports, extras


def _scenarios(
    bundle: Bundle, request: BenchRequest, steps: Steps, watch: Watch
) -> dict[str, report.Section]:
    """What was asked for beside SingleStream, one after the other."""
    name = bundle.manifest.name

    def setup(what: str) -> scenarios.Setup:
        return scenarios.Setup(
            bundle=bundle,
            duration_s=request.duration_s,
            batch=request.batch,
            threads=request.threads or bundle.manifest.target.threads or usable_cores(),
            streams=request.streams,
            on_progress=_looking(steps, f"{what} of {name}", watch),
        )

    sections: dict[str, report.Section] = {}
    if "offline" in request.scenarios:
        sections["offline"] = scenarios.offline(setup("offline"))
    if "threads" in request.sweeps:
        sections["sweep_threads"] = scenarios.sweep_threads(setup("threads"))
    if "batch" in request.sweeps:
        sections["sweep_batch"] = scenarios.sweep_batch(setup("batch sizes"))
    return sections


def _show(steps: Steps, step: str, done: float) -> None:
    steps(step, done, 1.0)


def _looking(steps: Steps, step: str, watch: Watch) -> Callable[[float], None]:
    """Show progress of `step`, and look at the machine."""

    def show(done: float) -> None:
        steps(step, done, 1.0)
        watch.look()

    return show


def _drift(run: SingleStreamRun, index: int, watch: Watch) -> Drift | None:
    """How the artifact's latency changed; None where timing was too short to tell."""
    artifact, comparison = run.pairs[index][0], run.comparison
    line = trend(comparison.starts_s[artifact], comparison.rounds[artifact])
    if line is None:
        return None
    return Drift(
        duration_s=line.duration_s,
        slope_percent_per_minute=line.percent_per_minute,
        slope_ci=line.interval,
        confidence=CONFIDENCE,
        slower=line.slower,
        throttled=watch.throttled(),
        temperature_c=watch.temperature_c(),
    )


def _stale(bundle: Bundle, machine: Host) -> dict[str, report.Section | None]:
    """Sections of a bundle's report to remove: those that would not be of `machine` any more."""
    stale = report.host_changes(bundle, machine)
    threads = report.read(bundle.path / REPORT).get("host", {}).get("threads")
    if not stale and threads != machine.threads:  # the other sections say theirs
        stale |= dict.fromkeys(("latency", "drift", "recommendation"))
    return stale

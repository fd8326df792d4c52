"""The job of `vitedge bench`: what was asked for, in an order that disturbs the timing least.

Timing goes first, then energy, then processes of their own; and all is written down at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import msgspec

from vitedge.core import report
from vitedge.core.bundle import Bundle, open_bundle
from vitedge.core.errors import InputError, nearest
from vitedge.core.machine import ROOT, describe_machine, usable_cores
from vitedge.core.measurements import Drift, Percentiles
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.core.runtime import Session, runtime_of
from vitedge.measure.accuracy import parity
from vitedge.measure.latency import clock, scenarios
from vitedge.measure.latency.cold_start import cold_starts
from vitedge.measure.latency.conditions import Watch
from vitedge.measure.latency.drift import trend
from vitedge.measure.latency.energy import measure_energy
from vitedge.measure.latency.lock import exclusive_timing
from vitedge.measure.latency.single_stream import (
    SingleStreamRun,
    circumstances,
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

    def measured(self, merged: Report) -> Report:
        """A merged report without the scenarios that this did not measure."""
        single, swept = "single-stream" in self.scenarios, self.sweeps
        return msgspec.structs.replace(
            merged,
            accuracy=merged.accuracy if single else None,
            latency=merged.latency if single else None,
            drift=merged.drift if single else None,
            recommendation=merged.recommendation if single else None,
            offline=merged.offline if "offline" in self.scenarios else None,
            sweep_threads=merged.sweep_threads if "threads" in swept else None,
            sweep_batch=merged.sweep_batch if "batch" in swept else None,
        )


def check(request: BenchRequest, bundles: Sequence[Bundle]) -> None:
    """Raises InputError for what cannot be done, before anything runs."""
    clock.check_duration(request.duration_s)
    for parameter, names, known in (
        ("scenarios", request.scenarios, get_args(Scenario)),
        ("sweeps", request.sweeps, get_args(Swept)),
    ):
        for name in names:
            if name not in known:
                raise InputError(f"unknown `{parameter}` '{name}'", fix=nearest(name, known))
    if request.against != "fp32" and "single-stream" not in request.scenarios:
        raise InputError(
            "`against` is compared in single-stream alone", fix="add `scenarios=['single-stream']`"
        )
    if request.streams and "offline" not in request.scenarios:
        raise InputError(
            "`streams` does nothing without `scenarios=['offline']`",
            fix="add `scenarios=['offline']`",
        )
    if request.threads and request.streams > request.threads:
        raise InputError(
            f"`threads={request.threads}` are too few for `streams={request.streams}`",
            fix="pass one thread for each stream, or more",
        )
    for name in ("threads", "batch"):
        if name in request.sweeps and getattr(request, name):
            raise InputError(
                f"`sweeps=['{name}']` and `{name}` exclude each other", fix=f"drop `{name}`"
            )
    for bundle in bundles:
        processor = runtime_of(bundle.manifest.target).processor
        if "threads" in request.sweeps and processor != "cpu":
            raise InputError(
                f"{bundle.path} does not run on the CPU, "
                "so `sweeps=['threads']` says nothing of it",
                fix="drop `sweeps=['threads']`",
            )
        fixed = bundle.manifest.inputs[0].shape[0] if bundle.manifest.inputs else None
        if "batch" in request.sweeps and isinstance(fixed, int):
            raise InputError(
                f"{bundle.path} is fixed at batch {fixed}, so there is nothing to sweep",
                fix="export it with `batch='dynamic'`",
            )


def bench_bundles(
    bundles: Sequence[Bundle],
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session] | None = None,
) -> tuple[list[Report], dict[str, Percentiles]]:
    """Measure bundles as asked, with memory and cold start, and recommend a precision again.

    `others` are further sessions to time in the same run, by name. Returns the merged report of
    each bundle, and the latency of each of `others`. Raises InputError, UnavailableError.
    """
    check(request, bundles)
    rival = None if request.against == "fp32" else open_bundle(Path(request.against))
    for bundle in bundles:
        report.check_writable(bundle)
        bundle.reference()  # what lies beside it is its FP32 bundle
    with exclusive_timing(steps.note):
        return _bench(bundles, rival, steps, request, others)


def _bench(
    bundles: Sequence[Bundle],
    rival: Bundle | None,
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session] | None,
) -> tuple[list[Report], dict[str, Percentiles]]:
    machine = describe_machine(request.threads or usable_cores())
    watch = Watch(ROOT)
    run: SingleStreamRun | None = None
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
    timed = [_scenarios(bundle, request, steps, watch) for bundle in bundles]
    conditions = watch.conditions(machine)
    reports = []
    for index, (bundle, scenario_report) in enumerate(zip(bundles, timed, strict=True)):
        name = bundle.manifest.name
        energy = measure_energy(
            bundle,
            request.duration_s,
            ROOT,
            batch=request.batch,
            threads=request.threads,
            on_progress=partial(_show, steps, f"energy of {name}"),
        )
        steps.say(f"cold start and memory of {name}")
        share_s = request.duration_s * COLD_SHARE
        cold_start, memory = cold_starts(bundle.path, request.threads, share_s)
        artifact_parity, numerics = parity.measure(bundle, request.threads)
        reports.append(
            Report(
                **circumstances(bundle, machine, conditions),
                latency=latency_of(run, index, request.against) if run else None,
                drift=_drift(run, index, watch) if run else None,
                offline=scenario_report.offline,
                sweep_threads=scenario_report.sweep_threads,
                sweep_batch=scenario_report.sweep_batch,
                energy=energy,
                cold_start=cold_start,
                memory=memory,
                parity=artifact_parity,
                numerics=numerics,
            )
        )
    merged = [report.merge(*pair) for pair in zip(bundles, reports, strict=True)]
    if run is None:
        return merged, {}
    return recommend_among(bundles), run.others


def _scenarios(bundle: Bundle, request: BenchRequest, steps: Steps, watch: Watch) -> Report:
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

    offline, swept = "offline" in request.scenarios, request.sweeps
    return Report(
        **report.identity(bundle),
        offline=scenarios.offline(setup("offline")) if offline else None,
        sweep_threads=scenarios.sweep_threads(setup("threads")) if "threads" in swept else None,
        sweep_batch=scenarios.sweep_batch(setup("batch sizes")) if "batch" in swept else None,
    )


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
    drift = trend(comparison.starts_s[artifact], comparison.rounds[artifact])
    if drift is None:
        return None
    return msgspec.structs.replace(
        drift, throttled=watch.throttled(), temperature_c=watch.temperature_c()
    )

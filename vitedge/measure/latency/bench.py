"""The job of `vitedge bench`: what was asked for, in an order that disturbs the timing least.

Timing goes first, then energy, then processes of their own; and all is written down at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from vitedge.core import report
from vitedge.core.bundle import Bundle, open_bundle
from vitedge.core.machine import ROOT, describe_machine, usable_cores
from vitedge.core.measurements import Drift, Percentiles
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.core.runtime import Session
from vitedge.measure.accuracy import parity, reference
from vitedge.measure.latency import scenarios
from vitedge.measure.latency.cold_start import cold_starts
from vitedge.measure.latency.conditions import Watch
from vitedge.measure.latency.end_to_end import end_to_end
from vitedge.measure.latency.energy import measure_energy
from vitedge.measure.latency.lock import exclusive_timing
from vitedge.measure.latency.request import BenchRequest, check
from vitedge.measure.latency.single_stream import (
    SingleStreamRun,
    circumstances,
    latency_of,
    recommend_among,
    run_single_stream,
)
from vitedge.measure.latency.summary import trend
from vitedge.runtimes import without_bf16

T = TypeVar("T")
COLD_SHARE = 0.5
"""Of the duration: what further cold starts may take."""


def bench_bundles(
    bundles: Sequence[Bundle],
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session] | None = None,
) -> tuple[list[Report], dict[str, Percentiles]]:
    """Measure bundles as asked, with memory and cold start, and recommend a precision again.

    `others` are further sessions to time in the same run, by name. Returns the merged report of
    each bundle, and the latency of each of `others`. Raises InputError, UnavailableError, and
    LimitError where FP32 does not give its own golden outputs.
    """
    check(request, bundles)
    trust = next((bundle.trust for bundle in bundles if bundle.trust), None)
    allowed = any(bundle.allows_host_code for bundle in bundles)
    rival = (
        None
        if request.against == "fp32"
        else open_bundle(Path(request.against), trust, allow_host_code=allowed)
    )
    for bundle in bundles:
        report.check_writable(bundle)
        bundle.reference()  # what lies beside it is its FP32 bundle
    with exclusive_timing(steps.note) as alone:
        return _bench(bundles, rival, steps, request, others, Watch(ROOT, alone=alone))


def _bench(
    bundles: Sequence[Bundle],
    rival: Bundle | None,
    steps: Steps,
    request: BenchRequest,
    others: Mapping[str, Session] | None,
    watch: Watch,
) -> tuple[list[Report], dict[str, Percentiles]]:
    machine = describe_machine(request.threads or usable_cores())
    run: SingleStreamRun | None = None
    single_stream = "single-stream" in request.scenarios
    if rival or not single_stream:  # which otherwise opens FP32 itself
        for bundle in bundles:
            if bundle.manifest.reference:
                reference.raise_for(reference.fault_here(bundle))
    if single_stream:
        run = run_single_stream(
            bundles, steps, request, rival=rival, others=others, on_round=watch.look
        )
    timed = [_scenarios(bundle, request, steps, watch) for bundle in bundles]
    conditions = watch.conditions(machine)
    reports = []
    for index, (bundle, scenario_report) in enumerate(zip(bundles, timed, strict=True)):
        name = bundle.manifest.name
        show = partial(steps, f"energy of {name}", total=1.0)
        energy = measure_energy(bundle, request, ROOT, on_progress=show)
        steps.say(f"cold start and memory of {name}")
        share_s = request.duration_s * COLD_SHARE
        cold_start, memory = cold_starts(
            bundle.checked, request.threads, share_s, allow_host_code=bundle.allows_host_code
        )
        artifact_parity, numerics = parity.measure(bundle, request.threads)
        reports.append(
            Report(
                **circumstances(bundle, machine, conditions),
                latency=latency_of(run, index, request.against) if run else None,
                drift=_drift(run, index, watch) if run else None,
                offline=scenario_report.offline,
                sweep_threads=scenario_report.sweep_threads,
                sweep_batch=scenario_report.sweep_batch,
                end_to_end=scenario_report.end_to_end,
                energy=energy,
                cold_start=cold_start,
                memory=memory,
                parity=None if without_bf16(bundle) else artifact_parity,
                numerics=None if without_bf16(bundle) else numerics,
            )
        )
    merged = [report.merge(*pair) for pair in zip(bundles, reports, strict=True)]
    if run is None:
        return merged, {}
    return recommend_among(bundles), run.others


def _scenarios(bundle: Bundle, request: BenchRequest, steps: Steps, watch: Watch) -> Report:
    """What was asked for beside SingleStream, one after the other."""
    name = bundle.manifest.name

    def measured(scenario: Callable[..., T], what: str, on: bool) -> T | None:
        show = _looking(steps, f"{what} of {name}", watch)
        return scenario(bundle, request, on_progress=show) if on else None

    swept, images = request.sweeps, request.photographs
    looking = _looking(steps, f"end to end of {name}", watch)
    return Report(
        **report.identity(bundle),
        offline=measured(scenarios.offline, "offline", "offline" in request.scenarios),
        sweep_threads=measured(scenarios.sweep_threads, "threads", "threads" in swept),
        sweep_batch=measured(scenarios.sweep_batch, "batch sizes", "batch" in swept),
        end_to_end=end_to_end(bundle, request, images, looking) if images else None,
    )


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

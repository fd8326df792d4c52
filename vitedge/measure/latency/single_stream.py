"""SingleStream of several bundles and what they are compared with, in turn within one run."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vitedge.core import report
from vitedge.core.bundle import Bundle
from vitedge.core.host import Host, fingerprint
from vitedge.core.machine import ROOT, describe_machine, usable_cores
from vitedge.core.measurements import Conditions, Latency, Lead, Percentiles
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.core.runtime import Session
from vitedge.core.spec import Precision
from vitedge.measure import recommendation
from vitedge.measure.accuracy import reference
from vitedge.measure.latency.clock import Feed, golden_feed, measure
from vitedge.measure.latency.conditions import Watch
from vitedge.measure.latency.lock import exclusive_timing
from vitedge.measure.latency.request import BenchRequest
from vitedge.measure.latency.summary import LatencyComparison, timings
from vitedge.measure.statistics import log_se_of_ratio, share_se
from vitedge.runtimes import open_session, without_bf16


@dataclass(frozen=True)
class SingleStreamRun:
    """Bundles timed in turn with their rivals."""

    comparison: LatencyComparison
    pairs: tuple[tuple[int, int | None], ...]
    """Places in the run of each bundle and of its rival; None where it was timed alone."""
    siblings: tuple[dict[Precision, int], ...]
    """Of each bundle, the places of its model's other precisions on its target, but FP32's."""
    batches: tuple[int, ...]
    """Images a run, of each place."""
    others: dict[str, Percentiles]


def run_single_stream(
    bundles: Sequence[Bundle],
    steps: Steps,
    request: BenchRequest,
    *,
    on_round: Callable[[], None],
    rival: Bundle | None = None,
    others: Mapping[str, Session] | None = None,
) -> SingleStreamRun:
    """Time every bundle in turn, in one run, with what it is compared against.

    That is `rival`, or without one each bundle's own FP32 bundle where that is at hand. `others`
    are further sessions to time in the same run, by name. `on_round` is called after each round.
    Raises LimitError where FP32 does not give its own golden outputs.
    """
    others = others or {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_timing(steps.note))
        sessions: dict[Path, Session] = {}
        feeds: list[Feed] = []

        def load(bundle: Bundle) -> int:
            """Open a bundle once; returns its place in the run."""
            path = bundle.path.resolve()
            if path not in sessions:
                steps.say(f"loading {bundle.manifest.name}")
                sessions[path] = stack.enter_context(open_session(bundle, request.threads))
                feeds.append(golden_feed(bundle, sessions[path], request.batch))
            return list(sessions).index(path)

        pairs = []
        for bundle in bundles:
            other = rival or bundle.reference()
            if other is not None and other.path.resolve() == bundle.path.resolve():
                other = None
            if without_bf16(bundle) or (other is not None and without_bf16(other)):
                other = None
            pairs.append((load(bundle), None if other is None else load(other)))
            if rival is None and other is not None:
                reference.check(bundle, other, sessions[other.path.resolve()])
        image = next(iter(feeds[0].values()))
        feeds += [{session.inputs[0].name: image} for session in others.values()]

        def show(done: float) -> None:
            steps("timing in turn", done, 1.0)
            on_round()

        comparison = measure(
            [*sessions.values(), *others.values()], feeds, request.duration_s, on_progress=show
        )
    return SingleStreamRun(
        comparison=comparison,
        pairs=tuple(pairs),
        siblings=tuple(_siblings(index, bundles, pairs) for index in range(len(bundles))),
        batches=tuple(len(next(iter(feed.values()))) for feed in feeds),
        others=dict(zip(others, comparison.latencies[len(sessions) :], strict=True)),
    )


def _siblings(
    index: int, bundles: Sequence[Bundle], pairs: Sequence[tuple[int, int | None]]
) -> dict[Precision, int]:
    """The places of the other precisions of bundle `index`, but FP32's."""
    return {
        other.manifest.precision: place
        for other, (place, _) in zip(bundles, pairs, strict=True)
        if _model(other) == _model(bundles[index])
        and other.manifest.precision not in ("fp32", bundles[index].manifest.precision)
        and not (without_bf16(other) or without_bf16(bundles[index]))
    }


def _model(bundle: Bundle) -> Path:
    """Where the FP32 bundle of a bundle's model and target lies, or should: one for all of them."""
    path, reference = bundle.path.resolve(), bundle.manifest.reference
    return path.with_name(reference.bundle) if reference else path


def latency_of(run: SingleStreamRun, index: int, against: str) -> Latency:
    """The report's section for bundle `index` of `run`, compared `against` fp32 or a path."""
    artifact, rival = run.pairs[index]
    sessions, rounds = timings(run.comparison), run.comparison.rounds
    speedup: float | None = None
    interval: tuple[float, float] | None = None
    log_se: float | None = None
    if rival is not None:
        speedup, interval = run.comparison.speedup(artifact, rival)
        log_se = log_se_of_ratio(rounds[rival], rounds[artifact])
    rival_timing = None if rival is None else sessions[rival]
    return Latency(
        **msgspec.structs.asdict(sessions[artifact]),
        batch=run.batches[artifact],
        against=None if rival is None else against,
        fp32=rival_timing if against == "fp32" else None,
        other=rival_timing if against != "fp32" else None,
        speedup=speedup,
        speedup_ci=interval,
        rounds=len(rounds[artifact]),
        speedup_log_se=log_se,
        p90_share_se=share_se(rounds[artifact], 0.9),
        over={
            precision: _lead(run.comparison, artifact, place)
            for precision, place in run.siblings[index].items()
        },
    )


def _lead(comparison: LatencyComparison, artifact: int, other: int) -> Lead:
    speedup, interval = comparison.speedup(artifact, other)
    log_se = log_se_of_ratio(comparison.rounds[other], comparison.rounds[artifact])
    return Lead(speedup=speedup, speedup_ci=interval, log_se=log_se)


def circumstances(bundle: Bundle, machine: Host, conditions: Conditions) -> dict[str, Any]:
    """What the report of a bundle timed on `machine` says beside its timing, for `Report`."""
    bundle_host = report.host_of(bundle, machine)
    warnings, needs = conditions.warnings, without_bf16(bundle)
    if needs:
        name = bundle.manifest.name
        warnings += (f"{name} computed its floats in FP32, for want of {needs}",)
    return {
        **report.identity(bundle),
        "size": report.size(bundle, bundle.reference()),
        "host": bundle_host,
        "conditions": msgspec.structs.replace(
            conditions,
            fingerprint=fingerprint(bundle_host),
            fp32_floats=bool(needs),
            warnings=warnings,
        ),
    }


def time_bundles(bundles: Sequence[Bundle], steps: Steps, *, duration_s: float) -> None:
    """Time bundles in turn with FP32 and write that into their reports; no more than that."""
    for bundle in bundles:
        report.check_writable(bundle)
    machine = describe_machine(usable_cores())
    with exclusive_timing(steps.note) as alone:
        watch = Watch(ROOT, alone=alone)
        run = run_single_stream(bundles, steps, BenchRequest(duration_s), on_round=watch.look)
        conditions = watch.conditions(machine)
    for index, bundle in enumerate(bundles):
        latency = latency_of(run, index, "fp32")
        report.merge(bundle, Report(**circumstances(bundle, machine, conditions), latency=latency))


def recommend_among(bundles: Sequence[Bundle], max_drop_pp: float | None = None) -> list[Report]:
    """Write which precision to ship into the reports of bundles that were just timed together.

    A model on a target gets one recommendation, from its reports; none, and an older one goes,
    where nothing was compared with FP32. Without `max_drop_pp` the loss allowed before is
    allowed again. Returns the merged report of each bundle.
    """
    models: defaultdict[Path, list[Bundle]] = defaultdict(list)
    for bundle in bundles:
        models[_model(bundle)].append(bundle)
    merged = {}
    for group in models.values():
        reports = [r for bundle in group if (r := report.of_bundle(bundle))]
        before = [r.recommendation.max_drop_pp for r in reports if r.recommendation]
        limit = max_drop_pp
        if limit is None:
            limit = before[0] if before else recommendation.MAX_DROP_PP
        chosen = recommendation.recommend(
            recommendation.candidates_of(reports), limit, recommendation.leads_of(reports)
        )
        for bundle in group:
            merged[bundle.path] = report.recommend(bundle, chosen)
    return [merged[bundle.path] for bundle in bundles]


def time_in_turn(
    bundles: Sequence[Bundle], steps: Steps, *, duration_s: float
) -> LatencyComparison:
    """Time bundles in turn on their golden images, `duration_s` seconds each; writes nothing."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_timing(steps.note))
        sessions = [stack.enter_context(open_session(bundle)) for bundle in bundles]
        pairs = zip(bundles, sessions, strict=True)
        return measure(
            sessions,
            [golden_feed(bundle, session, None) for bundle, session in pairs],
            duration_s,
            on_progress=lambda done: steps("timing in turn", done, 1.0),
        )

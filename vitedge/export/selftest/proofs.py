"""The steps that measure: parity, accuracy, what is executed, latency, cold start and drift."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from vitedge.core.bundle import Bundle
from vitedge.core.errors import LimitError
from vitedge.core.report import Numerics
from vitedge.core.spec import QUANTIZED
from vitedge.export.selftest.subjects import DIGITS, Subject
from vitedge.export.selftest.work import Outcome, Work
from vitedge.measure import api
from vitedge.measure.accuracy import parity as golden
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.cold_start import cold_starts
from vitedge.measure.latency.request import BenchRequest
from vitedge.measure.latency.single_stream import time_in_turn
from vitedge.measure.latency.summary import trend
from vitedge.models.zoo.costs import COSTS
from vitedge.runtimes import executed

LEAST_DB = 10.0
"""SQNR that any precision keeps of these models: it is twice that and more where all is well."""
MOST_DROP_PP = 1.0
SLOWEST = 3.0
"""Times the latency of FP32 that no precision takes."""
SLOWEST_PRODUCTS, OVERHEAD_MS = 10.0, 50.0
"""Times that numpy takes for as many multiply-accumulates on one CPU, and what a run of nothing
may take: no runtime is slower."""
LEAST_SHARE = 0.8
"""Of the products planned in INT8 or FP8: so many are executed so."""
WORSE_PERCENT = 20.0
"""A minute that an artifact may lose more than FP32 in turn with it."""
BENCH_S = {DIGITS: 0.5}
OTHERS_BENCH_S = 1.5
COLD_S, DRIFT_S = 1.0, 60.0


def parity(work: Work, subject: Subject) -> Outcome:
    """Golden images give here what they gave where the artifact was made. Raises LimitError."""
    measured = golden.check(work.bundle(subject)).parity
    assert measured is not None
    if measured.broken:
        raise LimitError(f"{subject.title}: {measured.broken}", fix="look at the runtime's version")
    return _fidelity(measured.numerics, f"{measured.n} golden images")


def validate(work: Work, subject: Subject) -> Outcome:
    """Accuracy where the model has images of its own, else numerics. Raises LimitError."""
    report = api.validate(work.bundle(subject), progress=work.steps)
    numerics, accuracy = report.numerics, report.accuracy
    if subject.precision != "fp32" and numerics:
        if numerics.max_abs_error is None:
            raise LimitError(f"{subject.title}: its outputs are not finite")
        if numerics.sqnr_db is not None and numerics.sqnr_db < LEAST_DB:
            raise LimitError(
                f"{subject.title}: {numerics.sqnr_db:.1f} dB SQNR, under {LEAST_DB:g}",
                fix="compare the runtime's version with the manifest's",
            )
    outcome = _fidelity(numerics, numerics.data if numerics else "")
    if accuracy is None:
        return outcome
    drop_pp = accuracy.drop_pp or 0.0
    if drop_pp > MOST_DROP_PP:
        raise LimitError(
            f"{subject.title}: it loses {drop_pp:.2f} points, more than {MOST_DROP_PP:g}"
        )
    says = f"{100 * accuracy.artifact:.2f}% of {accuracy.n} images"
    figures = {**outcome.figures, "accuracy": accuracy.artifact, "drop_pp": drop_pp}
    return Outcome(f"{says}, {outcome.says}" if subject.precision != "fp32" else says, figures)


def _fidelity(numerics: Numerics | None, data: str) -> Outcome:
    if numerics is None or numerics.sqnr_db is None:
        return Outcome(f"equal to FP32's on {data}")
    return Outcome(f"{numerics.sqnr_db:.1f} dB on {data}", {"sqnr_db": numerics.sqnr_db})


def compiled(work: Work, subject: Subject) -> Outcome:
    """What the compiler made of INT8 or FP8, as its log says. Raises LimitError."""
    record = work.bundle(subject).manifest.build
    made = record.compiled if record else None
    if made is None:
        raise LimitError(
            f"{subject.title}: no compiler was at hand to say what becomes of it",
            fix="pip install 'vitedge[tensorrt-rtx]', and build it again with `force=True`",
        )
    return _coverage(subject, made.int8 + made.fp8, made.planned, 1.0, made.compiler)


def coverage(work: Work, subject: Subject) -> Outcome:
    """What of INT8 or FP8 the runtime executes so, after its own fusions. Raises LimitError."""
    bundle = work.bundle(subject)
    record, count = bundle.manifest.quantization, executed(bundle)
    assert record is not None and count is not None  # else it is not a step
    planned = sum(layer.quantized for layer in record.layers) / len(record.layers)
    title = f"{bundle.manifest.target.runtime} executes"
    return _coverage(subject, count.quantized, count.products, planned, title)


def _coverage(subject: Subject, quantized: int, of: int, planned: float, title: str) -> Outcome:
    share = quantized / max(1, of)
    what = f"{quantized} of {of} products in {subject.precision.upper()}"
    if share < LEAST_SHARE * planned:
        raise LimitError(
            f"{subject.title}: {what} ({title}), where {planned:.0%} were planned",
            fix="look at the artifact with 'vitedge inspect'",
        )
    return Outcome(f"{what} ({title})", {"quantized": quantized, "products": of})


def bench(work: Work, subjects: Sequence[Subject]) -> Outcome:
    """Every precision of a model in turn with FP32. Raises LimitError for what is far too slow."""
    model = subjects[0].model
    bundles = [work.bundle(subject) for subject in subjects]
    request = BenchRequest(BENCH_S.get(model, OTHERS_BENCH_S))
    reports, _ = bench_bundles(bundles, work.steps, request)
    for error in golden.broken(reports):
        raise error
    figures: dict[str, float] = {}
    products_ms = _products_ms(bundles)
    for subject, report in zip(subjects, reports, strict=True):
        latency = report.latency
        assert latency is not None
        figures[f"{subject.precision}_p50_ms"] = latency.p50_ms
        if latency.speedup_ci and latency.speedup_ci[1] < 1 / SLOWEST:
            raise LimitError(
                f"{subject.title}: {1 / (latency.speedup or 1):.1f} times the latency of FP32",
                fix="look at what else runs here, and at the runtime's version",
            )
        if products_ms and latency.p50_ms > SLOWEST_PRODUCTS * products_ms + OVERHEAD_MS:
            raise LimitError(
                f"{subject.title}: slow: {latency.p50_ms:.1f} ms a run, and numpy takes "
                f"{products_ms:.1f} ms for its products on one CPU",
                fix="look at what else runs here, and at the runtime's threads",
            )
    if products_ms:
        figures["numpy_products_ms"] = products_ms
    says = ", ".join(f"{s.precision} {figures[f'{s.precision}_p50_ms']:.3g} ms" for s in subjects)
    recommended = reports[0].recommendation
    ship = f"; ship {recommended.precision}" if recommended else ""
    return Outcome(f"p50 {says}{ship}", figures)


def _products_ms(bundles: Sequence[Bundle]) -> float | None:
    """What numpy takes here for as many multiply-accumulates; None where nobody counted them."""
    macs = COSTS.get(bundles[0].manifest.model.name, (0, 0))[1]
    for bundle in bundles:
        if record := bundle.manifest.quantization:
            macs = macs or sum(layer.figures.macs for layer in record.layers if layer.figures)
    size = 256
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    times = []
    for _ in range(20):
        start = perf_counter()
        left @ right
        times.append(perf_counter() - start)
    return 1e3 * float(np.median(times)) * macs / size**3 if macs else None


def cold_start(work: Work, subjects: Sequence[Subject]) -> Outcome:
    """From a new process to the first answer, of FP32 and of the last precision."""
    figures: dict[str, float] = {}
    for subject in dict.fromkeys((subjects[0], subjects[-1])):
        cold, memory = cold_starts(work.bundle(subject).checked, 0, COLD_S)
        figures[f"{subject.precision}_ready_ms"] = cold.process_to_ready_ms
        figures[f"{subject.precision}_peak_rss_bytes"] = memory.peak_rss_bytes
    ready = [
        f"{s.precision} {figures[f'{s.precision}_ready_ms']:.0f} ms"
        for s in subjects
        if f"{s.precision}_ready_ms" in figures
    ]
    return Outcome(f"ready after {', '.join(ready)}", figures)


def drift(work: Work, subjects: Sequence[Subject]) -> Outcome:
    """How latency changes over a minute, of the quantized artifact in turn with FP32.

    What changes both is the machine. Raises LimitError where the artifact alone gets slower.
    """
    pair = [subjects[0], next((s for s in subjects if s.precision in QUANTIZED), subjects[-1])]
    bundles = [work.bundle(subject) for subject in dict.fromkeys(pair)]
    comparison = time_in_turn(bundles, work.steps, duration_s=DRIFT_S / len(bundles))
    trends = [trend(*run) for run in zip(comparison.starts_s, comparison.rounds, strict=True)]
    base, own = trends[0], trends[-1]
    if base is None or own is None:
        raise LimitError(f"{pair[1].title}: too few runs in {DRIFT_S:g} s to see a drift")
    if own.slope_ci[0] - base.slope_ci[1] > WORSE_PERCENT:
        raise LimitError(
            f"{pair[1].title}: {own.slope_percent_per_minute:+.0f}% a minute, and FP32 beside it "
            f"{base.slope_percent_per_minute:+.0f}%",
            fix="look for what it keeps between runs",
        )
    says = f"{own.slope_percent_per_minute:+.1f}% a minute over {own.duration_s:.0f} s"
    figures = {
        "percent_per_minute": own.slope_percent_per_minute,
        "fp32_percent_per_minute": base.slope_percent_per_minute,
        "duration_s": own.duration_s,
    }
    if own.slower and base.slower:
        says += ", as does FP32: the machine gets slower"
    return Outcome(f"{pair[1].precision} {says}", figures)

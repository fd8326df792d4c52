"""The INT8 or FP8 step: PTQ, trained on where asked, with layers in float where a limit needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge import runtimes
from vitedge.core import manifest
from vitedge.core.bounds import asked, check_tokens, shortfalls
from vitedge.core.bundle import Bundle, amend
from vitedge.core.errors import InputError
from vitedge.core.spec import Target
from vitedge.export.accuracy_control import Probe
from vitedge.export.engines import GraphQuantizer, engine_of
from vitedge.export.request import Job
from vitedge.export.result import ExportResult
from vitedge.export.stage import Source, stage
from vitedge.measure.accuracy.validation import predict_all
from vitedge.quant.int8 import Int8, Train


def stage_quantized(
    job: Job, target: Target, source: Source, fp32: Bundle, train: Train | None
) -> ExportResult:
    """Stage the INT8 or FP8 bundle, with as many layers in float as the request's bounds take.

    Raises InputError where a bound cannot be checked here, LimitError where it cannot be met.
    """
    bounds = job.plan.request.bounds
    outputs = fp32.manifest.outputs
    check_tokens(bounds, job.model.name, ((len(o.shape), o.ordered_by) for o in outputs))
    if bounds.max_drop_pp is not None and not runtimes.runs_here(fp32):
        raise InputError(
            f"`max_drop_pp` cannot be checked: {target.name} does not run here",
            fix="drop `max_drop_pp`, and validate on the device, or pass `min_sqnr_db`, which "
            "is simulated",
        )
    engine = engine_of(job, target, source, fp32, train)
    quantizer = engine.quantizer
    int8 = _written(job, target, quantizer, train is not None)
    full = Probe(stage(job, target, source, int8, fp32), int8)
    chosen: Probe = full
    control: manifest.Control | None = None
    notes: Sequence[str] = ()
    if shortfalls(bounds, full.losses):
        chosen, control, notes = engine.control(full, bounds)
    record = int8.record
    if chosen is not full:
        record = _examined(quantizer, chosen.int8, target).record
    record = msgspec.structs.replace(record, control=control)
    if control is None and quantizer.trained is not None:
        error = training_parity(chosen.result.bundle, quantizer.trained.outputs)
        training = msgspec.structs.replace(quantizer.trained.record, parity=error)
        record = msgspec.structs.replace(record, training=training)
    described = amend(chosen.result.bundle, quantization=record)
    return replace(chosen.result, bundle=described, further_notes=tuple(notes))


def training_parity(bundle: Bundle, outputs: NDArray[Any]) -> float | None:
    """‖Δ‖/‖y‖ of the artifact's output on the golden images against `outputs`, of what was trained.

    None where it does not run here.
    """
    if not runtimes.runs_here(bundle):
        return None
    with runtimes.open_session(bundle) as session:
        predicted = predict_all(session, bundle.golden().images).astype(np.float64)
    return float(np.linalg.norm(predicted - outputs) / np.linalg.norm(outputs))


def _written(job: Job, target: Target, quantizer: GraphQuantizer, trained: bool) -> Int8:
    """All of it in INT8, examined; from the cache unless bounds or training go on from it."""
    folder = job.work / f"int8-{target.name}"

    def write() -> Int8:
        int8 = _examined(quantizer, quantizer.write(folder), target)
        return _placed(int8, lambda path: path.relative_to(folder))

    if job.cache is None or job.keys is None or trained or asked(job.plan.request.bounds):
        return _examined(quantizer, quantizer.write(folder), target)
    key = job.keys.qdq(target, job.plan.request.precision)
    int8 = job.cache.step("qdq", key, folder, Int8, write)
    return _placed(int8, lambda path: folder / path)


def _placed(int8: Int8, place: Callable[[Path], Path]) -> Int8:
    """`int8` with its files in other places."""
    rounded = None if int8.rounded is None else place(int8.rounded)
    return replace(int8, path=place(int8.path), deployed=place(int8.deployed), rounded=rounded)


def _examined(quantizer: GraphQuantizer, int8: Int8, target: Target) -> Int8:
    """`int8` with what its layers lose and what `target` does not take well in its record."""
    import onnx

    from vitedge.runtimes.lint import lint

    record = quantizer.examine(int8)
    record = msgspec.structs.replace(record, lint=lint(onnx.load(int8.deployed), target))
    return replace(int8, record=record)

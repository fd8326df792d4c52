"""The INT8 or FP8 step: PTQ, trained on where asked, with layers in float where a limit needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge import runtimes
from vitedge.core import manifest
from vitedge.core.bounds import check_tokens, shortfalls
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
    int8 = quantizer.write(job.work / f"int8-{target.name}")
    full = Probe(stage(job, target, source, int8, fp32), int8)
    chosen: Probe = full
    control: manifest.Control | None = None
    notes: Sequence[str] = ()
    if shortfalls(bounds, full.losses):
        chosen, control, notes = engine.control(full, bounds)
    record = msgspec.structs.replace(_examined(quantizer, chosen.int8, target), control=control)
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


def _examined(quantizer: GraphQuantizer, int8: Int8, target: Target) -> manifest.QuantizationRecord:
    """The record of `int8`, with what its layers lose and what `target` does not take well."""
    import onnx

    from vitedge.runtimes.lint import lint

    record = quantizer.examine(int8)
    return msgspec.structs.replace(record, lint=lint(onnx.load(int8.deployed), target))

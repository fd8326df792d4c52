"""The export of a model, step by step; each step is in the module that holds its idea."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge import runtimes
from vitedge.core.errors import InputError, SharedError
from vitedge.core.progress import Steps
from vitedge.core.publication import check_replaceable, publish, workspace
from vitedge.core.spec import QUANTIZED, Batch, Precision, Target
from vitedge.export import accuracy_control
from vitedge.export.failures import Failures
from vitedge.export.int8 import stage_quantized
from vitedge.export.kept_results import keep, recall, recalled
from vitedge.export.request import (
    ExportRequest,
    Job,
    Plan,
    open_image_sets,
    plan_export,
    precisions,
)
from vitedge.export.result import ExportResult, Exports
from vitedge.export.stage import Source, bundle_name, golden_images, stage
from vitedge.export.step_keys import Keys, data_digest, model_digest
from vitedge.measure.latency.single_stream import recommend_among, time_bundles
from vitedge.measure.open_bundle import OpenBundle
from vitedge.models.api import loaded
from vitedge.models.sources import ModelIdentity, ModelRequest, ReferenceModel
from vitedge.quant.bfloat16 import Bf16, to_bfloat16
from vitedge.quant.half import Fp16, to_float16
from vitedge.quant.int8 import Train

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph

_LOWER: dict[Precision, Callable[..., Fp16 | Bf16]] = {"fp16": to_float16, "bf16": to_bfloat16}


def export(request: ExportRequest, steps: Steps) -> Exports:
    """Export a model to every target asked for; any other than FP32 writes its FP32 bundle too.

    Nothing appears under `request.output` before all of it is built and checked. What one target
    cannot do costs no other bundle. Raises InputError, UnavailableError or LimitError.
    """
    plan = plan_export(request)
    model = load_model(plan, steps)
    return export_model(plan, model, steps)


def export_model(
    plan: Plan, model: ReferenceModel, steps: Steps, train: Train | None = None
) -> Exports:
    """Export a loaded model as `export` does; with `train`, INT8 is trained, or nothing written."""
    calibration, evaluation = open_image_sets(plan, model.identity, steps)
    cache, keys = None if train else plan.request.cache, keys_of(plan, model)
    with workspace(plan.request.output) as work:
        job = Job(plan, model.identity, calibration, evaluation, work, steps, cache, keys)
        failures = Failures(job, raised=train is not None)
        known = {target.name: recalled(job, target) for target in plan.targets}
        sources = _fp32_graphs(job, model, failures, [t for t in plan.targets if not known[t.name]])
        staged: list[ExportResult] = []
        for target in plan.targets:
            source = sources.get((target.batch, target.opset))
            results = known[target.name]
            if not results and source is not None:
                results = _bundles(job, target, source, train, failures)
            staged += _recommended(job, target, results)
        published = [_published(job, result) for result in staged]
    return Exports(published, failures).checked(keep_going=plan.request.keep_going)


def load_model(plan: Plan, steps: Steps) -> ReferenceModel:
    """The model of `plan`. Raises InputError where one of its bundles exists, without `force`."""
    request = plan.request
    steps.say("loading the model")
    model = loaded(request.model)
    for final in artifact_paths(plan, model.identity):
        if final.exists() and not request.force:
            raise InputError(
                f"{final} exists already", fix="pass `force=True` to replace it, or `output=DIR`"
            )
        check_replaceable(final)
    return model


def keys_of(plan: Plan, model: ReferenceModel) -> Keys | None:
    """What names the steps of `plan` in its cache; None without one, and of a model in memory."""
    request = plan.request
    if request.cache is None or isinstance(request.model, ReferenceModel):
        return None
    tools = runtimes.tool_versions(plan.targets[0], "onnx-ir")
    return Keys(
        model=model_digest(request.model, model, tools),
        recipe=plan.recipe,
        calibration=data_digest(plan.calib_data),
        evaluation=data_digest(plan.eval_data),
        bounds=request.bounds,
        allow_overlap=request.allow_overlap,
    )


def artifact_paths(plan: Plan, model: ModelIdentity) -> list[Path]:
    """Where the artifacts of `plan` will lie."""
    return [
        plan.request.output / bundle_name(model, target, precision)
        for target in plan.targets
        for precision in precisions(target, plan.request)
    ]


def _fp32_graphs(
    job: Job, model: ReferenceModel, failures: Failures, wanted: Sequence[Target]
) -> dict[tuple[Batch, int], Source]:
    """The FP32 graph for every batch size and opset that a `wanted` target needs and can have.

    Frees `model`, unless it came loaded.
    """
    from vitedge.export import onnx

    groups: dict[tuple[Batch, int], list[Target]] = {}
    for target in wanted:
        groups.setdefault((target.batch, target.opset), []).append(target)
    sources: dict[tuple[Batch, int], Source] = {}
    for (batch, opset), targets in groups.items():
        with failures.of(*targets, precision="fp32"):
            job.steps.say("exporting to ONNX")
            folder = job.work / f"onnx-{batch}-{opset}"
            with _named(job.plan.request.model):
                exported = _exported(job, model, targets[0], folder)
            sources[batch, opset] = Source(exported, golden_images(job, exported))
    if model is not job.plan.request.model:  # which its owner may need again
        onnx.release(model)
    return sources


def _exported(job: Job, model: ReferenceModel, target: Target, folder: Path) -> Fp32Graph:
    """The FP32 graph for `target`, exported or from the cache, in the new `folder`."""
    from vitedge.export import onnx
    from vitedge.graph.run import Fp32Graph

    def export() -> Fp32Graph:
        folder.mkdir()
        graph = onnx.export(model, folder, target.batch, target.opset)
        return replace(graph, path=Path(graph.path.name))

    if job.cache is None or job.keys is None:
        graph = export()
    else:
        graph = job.cache.step("onnx", job.keys.onnx(target), folder, Fp32Graph, export)
    return replace(graph, path=folder / graph.path)


@contextmanager
def _named(asked: ModelRequest | ReferenceModel) -> Iterator[None]:
    """Says of what is wrong with a model which file or name was asked for."""
    try:
        yield
    except SharedError as error:
        source = "" if isinstance(asked, ReferenceModel) else asked.weights or asked.model
        if not isinstance(source, (str, Path)) or not str(source):
            raise
        raise SharedError(f"{source}: {error.what}", fix=error.fix) from error


def _bundles(
    job: Job, target: Target, source: Source, train: Train | None, failures: Failures
) -> list[ExportResult]:
    """The staged bundles of `target` that it can have, FP32 first."""
    precision = job.plan.request.precision
    results: list[ExportResult] = []
    with failures.of(target, precision="fp32"):
        fp32 = recall(job, target, "fp32", None)
        fp32 = fp32 or keep(job, target, "fp32", stage(job, target, source))
        results.append(fp32)
        notes: list[str] = []
        for kind, lower in _LOWER.items():
            if kind not in precisions(target, job.plan.request):
                continue
            besides = failures if precision == kind else Failures(job, raised=False)
            with besides.of(target, precision=kind):
                result = recall(job, target, kind, fp32.bundle)
                if result is None:
                    folder = job.work / f"{kind}-{target.name}"
                    lowered = lower(
                        source.exported, target, job.calibration, source.golden, folder, job.steps
                    )
                    staged = stage(job, target, source, lowered, fp32.bundle)
                    result = keep(job, target, kind, staged)
                results.append(result)
            if besides is not failures:
                no = f"no {kind.upper()} to compare with"
                notes += [f"{no}: {failed.error.what}" for failed in besides]
        if precision in QUANTIZED:
            with failures.of(target, precision=precision):
                quantized = recall(job, target, precision, fp32.bundle)
                if quantized is None:
                    staged = stage_quantized(job, target, source, fp32.bundle, train)
                    quantized = keep(job, target, precision, staged)
                further_notes = (*notes, *quantized.further_notes)
                results.append(replace(quantized, further_notes=further_notes))
    return results


def _recommended(job: Job, target: Target, results: list[ExportResult]) -> list[ExportResult]:
    """Time one target's bundles in turn, where it runs here, and say which one to ship."""
    request, bundles = job.plan.request, [result.bundle for result in results]
    runnable = all(runtimes.runs_here(bundle) for bundle in bundles)
    if not runnable or not request.duration_s or len(bundles) < 2:
        return results
    failures = Failures(job, raised=False)
    with failures.of(target, precision=request.precision):
        time_bundles(bundles, job.steps, duration_s=request.duration_s)
        reports = recommend_among(bundles, request.max_drop_pp)
        return [replace(r, report=report) for r, report in zip(results, reports, strict=True)]
    *others, last = results
    notes = (f"not timed: {failed.error.what}" for failed in failures)
    return [*others, replace(last, further_notes=(*last.further_notes, *notes))]


def _published(job: Job, result: ExportResult) -> ExportResult:
    """Move a staged bundle to where it was asked for."""
    final = job.plan.request.output / result.bundle.manifest.name
    publish(result.bundle.path, final)
    accuracy_control.forget(final)
    notes = (*job.model.notes, *result.further_notes)
    return replace(result, bundle=OpenBundle(final, result.bundle.manifest), further_notes=notes)

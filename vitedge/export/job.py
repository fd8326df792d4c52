"""The whole job: reference model → FP32 ONNX → INT8 QDQ ONNX → bundles → accuracy."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from vitedge import runtimes
from vitedge.core import manifest, report
from vitedge.core.bundle import MODEL, Bundle, Golden, publish, seal, workspace
from vitedge.core.errors import InputError, UnavailableError, error_line, missing
from vitedge.core.progress import Steps
from vitedge.core.spec import Batch, Precision, Target
from vitedge.data.calibration import CalibrationImages
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Role, open_images
from vitedge.export.accuracy_control import Search
from vitedge.export.request import ExportRequest, Plan, plan_export
from vitedge.export.result import Made
from vitedge.export.stage import Source, bundle_name, precision_of, stage, versions
from vitedge.measure.accuracy.bundle_validation import (
    measure_numerics,
    simulate_bundle,
    validate_bundle,
)
from vitedge.measure.latency.single_stream import recommend_among, time_bundles, time_in_turn
from vitedge.models.sources import ModelIdentity, ReferenceModel, resolve
from vitedge.quant.half import Fp16, Guard
from vitedge.quant.int8 import Int8, Quantizer

if TYPE_CHECKING:
    from vitedge.graph.fp32 import Fp32Graph
    from vitedge.quant.settle import Calibrated

GOLDEN_IMAGES = 8
GOLDEN_BYTES = 2**24
"""Of outputs: a segmentation model's are large."""
COST_S = 1.0
"""For each of FP32, full INT8 and INT8 with layers in float, timed in turn."""


class Trainer(Protocol):
    """What goes on from PTQ, where a user asks for it."""

    def prepare(self, plan: Plan, model: ModelIdentity) -> None:
        """Check all that needs no export. Raises InputError."""

    def train(
        self, model: ModelIdentity, target: Target, golden: Golden, calibrated: Calibrated
    ) -> tuple[Calibrated, manifest.Trained]:
        """PTQ's result, trained on, and the record of how."""

    def parity(self, bundle: Bundle) -> float | None:
        """How far the artifact's output is from what was trained, relative."""


def export(request: ExportRequest, steps: Steps, trainer: Trainer | None = None) -> list[Made]:
    """Export a model to every target asked for; an FP16 or INT8 export writes its FP32 bundle too.

    With `trainer`, INT8 is trained. Nothing appears under `request.output` before all of it is
    built and checked.
    Raises InputError, UnavailableError or LimitError.
    """
    plan = plan_export(request)
    steps.say("loading the model")
    try:
        model = resolve(request.model)
    except ImportError as error:
        if error.name is None:
            raise UnavailableError(error_line(error), fix="install what it names") from error
        raise missing(error.name, "export") from error
    identity = model.identity
    for target in plan.targets:
        for precision in precisions(target, request.precision):
            final = request.output / bundle_name(identity, target, precision)
            if final.exists() and not request.force:
                raise InputError(
                    f"{final} exists already", fix="pass --force to replace it, or --output DIR"
                )
    if trainer is not None:
        trainer.prepare(plan, identity)
    published = []
    with workspace(request.output) as work:
        job = _Job(plan, identity, work, steps, trainer)
        job.export(model)
        staged = [made for target in plan.targets for made in job.recommend(job.build(target))]
        for made in staged:
            final = request.output / made.bundle.manifest.name
            publish(made.bundle.path, final)
            _control_file(final).unlink(missing_ok=True)
            notes = (*identity.notes, *made.further_notes)
            published.append(
                replace(made, bundle=Bundle(final, made.bundle.manifest), further_notes=notes)
            )
    return published


def precisions(target: Target, asked: Precision) -> tuple[Precision, ...]:
    """What is built: FP32 to compare with, and FP16 beside INT8 where the target computes in it."""
    beside: tuple[Precision, ...] = ("fp16",) if asked == "int8" and target.fp16_kernels else ()
    return tuple(dict.fromkeys(("fp32", *beside, asked)))


class _Job:
    """One model on its way to one or more targets; targets alike share the ONNX export."""

    def __init__(
        self, plan: Plan, model: ModelIdentity, work: Path, steps: Steps, trainer: Trainer | None
    ) -> None:
        self._plan, self._model, self._work, self._steps = plan, model, work, steps
        self._trainer = trainer
        self._sources: dict[tuple[Batch, int], Source] = {}
        self._calibration: CalibrationImages | None = None
        self._evaluation: ImageSet | None = None
        if plan.recipe and plan.calib_data:
            images = self._open(plan.calib_data, "calibration")
            self._calibration = CalibrationImages(images, plan.recipe, steps)
        if plan.eval_data:
            self._evaluation = self._open(plan.eval_data, "evaluation")

    def _open(self, path: str, role: Role) -> ImageSet:
        model = self._model
        return open_images(path, role, model.preprocess, model.labels, model.task)

    def export(self, model: ReferenceModel) -> None:
        """Export `model` to ONNX for every batch size and opset that a target needs."""
        from vitedge.export.onnx import export as export_onnx
        from vitedge.export.onnx import release

        for target in self._plan.targets:
            key = (target.batch, target.opset)
            if key not in self._sources:
                self._steps.say("exporting to ONNX")
                folder = self._work / f"onnx-{target.batch}-{target.opset}"
                folder.mkdir()
                exported = export_onnx(model, folder, target.batch, target.opset)
                self._sources[key] = Source(exported, self._golden(exported))
        release(model)

    def _golden(self, exported: Fp32Graph) -> Golden:
        """A few images, evaluation's if there are any, and FP32's outputs on ONNX Runtime."""
        calibration = self._calibration and self._calibration.images
        source = self._evaluation or calibration or self._open("random", "calibration")
        output_bytes = 4 * math.prod(size or 1 for size in exported.output.shape[1:])
        count = min(GOLDEN_IMAGES, max(1, GOLDEN_BYTES // output_bytes))
        drawn = list(source.sample(count, seed=0))
        images = np.concatenate([batch.images for batch in drawn])
        outputs = exported.outputs(images)
        return Golden(images, outputs, np.concatenate([batch.labels for batch in drawn]))

    def build(self, target: Target) -> list[Made]:
        """Stage the bundles of `target`, FP32 first."""
        asked = self._plan.request.precision
        source = self._sources[target.batch, target.opset]
        fp32 = self._stage(target, source, None, None)
        made, notes = [fp32], []
        if "fp16" in precisions(target, asked):
            try:
                guard = Guard(self._calibration, source.golden.images, self._steps)
                halved = guard.write(source.exported, target, self._work / f"fp16-{target.name}")
                made.append(self._stage(target, source, halved, fp32.bundle))
            except InputError as error:
                if asked == "fp16":
                    raise
                notes.append(f"no FP16 to compare with: {error.what}")
        if asked == "int8":
            int8 = self._int8(target, source, fp32.bundle)
            made.append(replace(int8, further_notes=(*notes, *int8.further_notes)))
        return made

    def _int8(self, target: Target, source: Source, fp32: Bundle) -> Made:
        """Stage the INT8 bundle, with as many layers in float as --max-drop takes."""
        limit = self._plan.request.max_drop_pp
        if limit is not None and not runtimes.runs_here(fp32):
            raise InputError(
                f"--max-drop cannot be checked: {target.name} does not run here",
                fix="drop --max-drop, and validate on the device",
            )
        assert self._calibration is not None
        train = None
        if self._trainer is not None:
            train = partial(self._trainer.train, self._model, target, source.golden)
        quantizer = Quantizer(source.exported, target, self._calibration, self._steps, train)
        int8 = quantizer.write(self._work / f"int8-{target.name}", {})
        full = self._stage(target, source, int8, fp32)
        if limit is None or full.drop_pp <= limit:
            return _described(full, self._compared(full, _examined(quantizer, int8, target)))
        return self._within(limit, target, source, fp32, quantizer, _Probe(full, int8))

    def _compared(
        self, made: Made, record: manifest.QuantizationRecord
    ) -> manifest.QuantizationRecord:
        """`record`, with how far the artifact is from what was trained."""
        if self._trainer is None or record.training is None:
            return record
        parity = self._trainer.parity(made.bundle)
        trained = msgspec.structs.replace(record.training, parity=parity)
        return msgspec.structs.replace(record, training=trained)

    def _within(
        self,
        limit_pp: float,
        target: Target,
        source: Source,
        fp32: Bundle,
        quantizer: Quantizer,
        full: _Probe,
    ) -> Made:
        """The INT8 bundle with the fewest layers in float that loses no more than `limit_pp`."""

        def probe(kept: Mapping[str, str]) -> _Probe:
            suffix = f".{len(kept)}"
            int8 = quantizer.write(self._work / f"int8-{target.name}{suffix}", kept)
            return _Probe(self._stage(target, source, int8, fp32, suffix), int8)

        name = full.made.bundle.manifest.name
        file = _control_file(self._plan.request.output / name)
        key = self._control_key(target, full)
        search = Search(file, self._work, key, limit_pp, self._steps)
        search.rank(lambda: quantizer.harm(full.int8))
        found = search.fewest(probe, lambda probe: probe.made.drop_pp, _Probe.discard)
        if found is None:
            fp32_score = full.made.report["accuracy"]["fp32"]
            raise search.unreachable(name, full.made.drop_pp, fp32_score)
        count, best = found
        bundles = [best.made.bundle, full.made.bundle, fp32]
        timed = time_in_turn(bundles, self._steps, duration_s=COST_S)
        control = search.record(count, full.made.drop_pp, timed)
        record = msgspec.structs.replace(_examined(quantizer, best.int8, target), control=control)
        return replace(_described(best.made, record), further_notes=tuple(search.notes))

    def _control_key(self, target: Target, full: _Probe) -> str:
        """A digest of everything that decides what keeping a layer in float gives."""
        model, measured = self._model, full.made.report["accuracy"]
        used = full.int8.record.calibration
        decisive = (
            *(model.source, model.weights_sha256, model.preprocess, model.task, model.labels),
            *(used.recipe, used.digest, target, versions()),
            *(measured["data"], measured["n"], measured["fp32"]),
        )
        content = msgspec.json.encode(decisive, order="deterministic")
        return hashlib.sha256(content).hexdigest()

    def _stage(
        self,
        target: Target,
        source: Source,
        lowered: Int8 | Fp16 | None,
        fp32: Bundle | None,
        suffix: str = "",
    ) -> Made:
        """Build and measure one bundle, in a folder of its name and `suffix`."""
        name = bundle_name(self._model, target, precision_of(lowered))
        self._steps.say(f"building {name}")
        folder = self._work / f"{name}{suffix}"
        bundle = stage(self._model, source, target, folder, lowered, fp32, self._steps)
        return Made(bundle, self._report(bundle, fp32 or bundle))

    def _report(self, bundle: Bundle, fp32: Bundle) -> dict[str, Any]:
        """Validate a staged bundle, if only on golden images, and report its size."""
        size = report.Size(bytes=bundle.size_bytes, fp32_bytes=fp32.size_bytes)
        images = self._evaluation
        if not runtimes.runs_here(bundle):
            if MODEL in bundle.manifest.files:
                return simulate_bundle(
                    bundle, images, self._steps, allow_overlap=self._plan.request.allow_overlap
                )
            return report.merge(bundle, size=size)
        if images is None:
            measure_numerics(bundle)
            return report.merge(bundle, size=size)
        return validate_bundle(
            bundle, images, self._steps, allow_overlap=self._plan.request.allow_overlap
        )

    def recommend(self, staged: list[Made]) -> list[Made]:
        """Time one target's bundles in turn, where it runs here, and say which one to ship."""
        request, bundles = self._plan.request, [made.bundle for made in staged]
        here = all(runtimes.runs_here(bundle) for bundle in bundles)
        if not here or not request.duration_s or len(bundles) < 2:
            return staged
        time_bundles(bundles, self._steps, duration_s=request.duration_s)
        reports = recommend_among(bundles, request.max_drop_pp)
        return [replace(made, report=each) for made, each in zip(staged, reports, strict=True)]


@dataclass(frozen=True)
class _Probe:
    """An INT8 bundle that was staged, and the graph it was built from."""

    made: Made
    int8: Int8

    def discard(self) -> None:
        """Free the disk of what did not serve."""
        shutil.rmtree(self.made.bundle.path)
        shutil.rmtree(self.int8.path.parent)


def _examined(quantizer: Quantizer, int8: Int8, target: Target) -> manifest.QuantizationRecord:
    """The record of `int8`, with what its layers lose and what `target` does not take well."""
    import onnx

    from vitedge.runtimes.lint import lint

    record = quantizer.examine(int8)
    return msgspec.structs.replace(record, lint=lint(onnx.load(int8.deployed), target))


def _described(made: Made, record: manifest.QuantizationRecord) -> Made:
    """`made` with another record of its quantization."""
    described = msgspec.structs.replace(made.bundle.manifest, quantization=record)
    return replace(made, bundle=seal(made.bundle.path, described))


def _control_file(final: Path) -> Path:
    """Where the search for layers to keep in float is remembered until `final` is written."""
    return final.with_name(f".{final.name}.control.json")

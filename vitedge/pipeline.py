"""The whole job: reference model → FP32 ONNX → INT8 QDQ ONNX → bundles → accuracy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitedge import artifact, catalog, host, manifest, report
from vitedge.artifact import Bundle, Golden
from vitedge.backends import BACKENDS, open_session
from vitedge.backends.base import TensorSpec
from vitedge.data import Role, open_images
from vitedge.errors import InputError, LimitError, UnavailableError, error_line, missing
from vitedge.imageset import ImageSet
from vitedge.int8 import Int8, Quantizer
from vitedge.models.sources import Identity, ReferenceModel, resolve
from vitedge.plan import ExportRequest, Plan, plan_export
from vitedge.progress import Steps
from vitedge.proof import measure_numerics, validate_bundle
from vitedge.spec import Batch, Precision, Preprocess, Target, Task
from vitedge.validate import predict

if TYPE_CHECKING:
    from vitedge.graph.export import Exported

GOLDEN_IMAGES = 8
GOLDEN_BYTES = 2**24
"""Of outputs: a segmentation model's are large."""
PARITY_LIMIT = 1e-3
"""Largest error of an FP32 bundle on the golden images, relative to the largest logit."""
TOOLS = (
    *("vitedge", "torch", "timm", "transformers", "torchvision", "onnx", "onnxscript"),
    *("onnxruntime", "openvino", "numpy", "pillow"),
)


@dataclass(frozen=True)
class Made:
    """One bundle that was written, and its report."""

    bundle: Bundle
    report: dict[str, Any]
    model_notes: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What a user should know before trusting it."""
        made = self.bundle.manifest
        found = list(self.model_notes)
        if made.accuracy_note:
            found.append(f"accuracy is not measurable: {made.accuracy_note}")
        if not catalog.runs_on(made.target, host.describe(threads=0)):
            found.append("not run: this machine is not what the target needs")
        if made.quantization:
            if not any(layer.role in ("qk", "pv") for layer in made.quantization.layers):
                found.append("no attention was found: what is done for ViTs alone was skipped")
            used = made.quantization.calibration
            found += [f"skipped {n} calibration images: {why}" for why, n in used.skipped.items()]
            if used.images < used.recipe.num_samples:
                found.append(
                    f"calibrated on {used.images} images, not {used.recipe.num_samples}: "
                    f"'{used.source}' has no more"
                )
        if accuracy := self.report.get("accuracy"):
            skipped = accuracy["skipped"].items()
            found += [f"skipped {n} evaluation images: {why}" for why, n in skipped]
        return [f"{made.name}: {note}" for note in found]


def export(request: ExportRequest, steps: Steps) -> list[Made]:
    """Export a model to every target asked for; an INT8 export writes its FP32 bundle too.

    Nothing appears under `request.output` before all of it is built and checked.
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
    job = _Job(plan, model.identity, steps)
    finals = [
        request.output / job.bundle_name(target, precision)
        for target in plan.targets
        for precision in job.precisions
    ]
    for final in finals:
        if final.exists() and not request.force:
            raise InputError(
                f"{final} exists already", fix="pass --force to replace it, or --output DIR"
            )
    with artifact.workspace(request.output) as work:
        job.export(model, work)
        staged = [made for target in plan.targets for made in job.build(target, work)]
        for made, final in zip(staged, finals, strict=True):
            artifact.publish(made.bundle.path, final)
    return [
        Made(Bundle(final, made.bundle.manifest), made.report, model.identity.notes)
        for made, final in zip(staged, finals, strict=True)
    ]


class _Job:
    """One model on its way to one or more targets; targets alike share the ONNX export."""

    def __init__(self, plan: Plan, model: Identity, steps: Steps) -> None:
        self._plan, self._model, self._steps = plan, model, steps
        self._host = host.describe(threads=0)
        self._exports: dict[tuple[Batch, int], tuple[Exported, Golden]] = {}
        self._calibration = self._evaluation = None
        if plan.recipe:
            self._calibration = self._open(plan.calib_data, "calibration")
        if plan.eval_data:
            self._evaluation = self._open(plan.eval_data, "evaluation")
        self.precisions: tuple[Precision, ...] = tuple(
            dict.fromkeys(("fp32", plan.request.precision))
        )

    def _open(self, path: str, role: Role) -> ImageSet:
        model = self._model
        return open_images(path, role, model.preprocess, model.labels, model.task)

    def bundle_name(self, target: Target, precision: Precision) -> str:
        """`<model>-<target>-<precision>`."""
        return f"{self._model.name}-{target.name}-{precision}"

    def export(self, model: ReferenceModel, work: Path) -> None:
        """Export `model` to ONNX for every batch size and opset that a target needs."""
        from vitedge.graph.export import export as export_onnx
        from vitedge.graph.export import release

        for target in self._plan.targets:
            key = (target.batch, target.opset)
            if key not in self._exports:
                self._steps.say("exporting to ONNX")
                folder = work / f"onnx-{target.batch}-{target.opset}"
                folder.mkdir()
                exported = export_onnx(model, folder, target.batch, target.opset)
                self._exports[key] = exported, self._golden(exported)
        release(model)

    def build(self, target: Target, work: Path) -> Iterator[Made]:
        """Stage the FP32 bundle of `target`, and the INT8 one where that was asked for."""
        exported, golden = self._exports[target.batch, target.opset]
        fp32 = self._stage(target, "fp32", exported, golden, work, None, None)
        yield Made(fp32, self._report(fp32, fp32))
        if self._plan.recipe:
            assert self._calibration is not None
            quantizer = Quantizer(
                exported, target, self._calibration, self._plan.recipe, self._steps
            )
            quantized = quantizer.write(work / f"int8-{target.name}", {})
            int8 = self._stage(target, "int8", exported, golden, work, quantized, fp32)
            measured = self._report(int8, fp32)
            self._check_drop(int8, measured)
            yield Made(int8, measured)

    def _golden(self, exported: Exported) -> Golden:
        """A few images, evaluation's if there are any, and FP32's outputs on ONNX Runtime."""
        source = self._evaluation or self._calibration or self._open("random", "calibration")
        output_bytes = 4 * math.prod(size or 1 for size in exported.output.shape[1:])
        count = min(GOLDEN_IMAGES, max(1, GOLDEN_BYTES // output_bytes))
        drawn = list(source.sample(count, seed=0))
        images = np.concatenate([batch.images for batch in drawn])
        outputs = exported.outputs(images)
        return Golden(images, outputs, np.concatenate([batch.labels for batch in drawn]))

    def _stage(
        self,
        target: Target,
        precision: Precision,
        exported: Exported,
        golden: Golden,
        work: Path,
        int8: Int8 | None,
        fp32: Bundle | None,
    ) -> Bundle:
        """Build one complete bundle under `work` and run it once on the golden images."""
        model, name = self._model, self.bundle_name(target, precision)
        folder = work / name
        folder.mkdir()
        self._steps.say(f"building {name}")
        backend = BACKENDS[target.runtime]
        backend.build(int8.path if int8 else exported.path, target, folder)
        golden.write(folder)
        labels = "".join(f"{label}\n" for label in model.labels)
        (folder / artifact.LABELS).write_text(labels, encoding="utf-8")
        note = _not_measurable(model, int8)
        bundle = artifact.seal(
            folder,
            manifest.Manifest(
                schema=manifest.SCHEMA,
                name=name,
                precision=precision,
                model=manifest.Model(
                    name=model.name,
                    source=model.source,
                    task=model.task,
                    num_classes=len(model.labels),
                    weights_sha256=model.weights_sha256,
                ),
                inputs=(_tensor(exported.input, "NHWC, RGB"),),
                outputs=(_tensor(exported.output, _layout(exported.output, model.task)),),
                preprocessing=manifest.Preprocessing(
                    host=model.preprocess, graph=_graph_part(model.preprocess)
                ),
                target=target,
                quantization=int8.record if int8 else None,
                parity=manifest.Parity(
                    max_abs_error=exported.max_abs_error, max_rel_error=exported.max_rel_error
                ),
                accuracy="not measurable" if note else "measurable",
                accuracy_note=note,
                reference=manifest.Reference(bundle=fp32.path.name, files=fp32.model_files)
                if fp32
                else None,
                tools=_versions(),
                files={},
            ),
        )
        self._check_golden(bundle, golden)
        return bundle

    def _check_golden(self, bundle: Bundle, golden: Golden) -> None:
        """Run what was built once, where this machine can; FP32 must agree with the graph."""
        if not catalog.runs_on(bundle.manifest.target, self._host):
            return
        with open_session(bundle) as session:
            outputs = predict(session, golden.images[: session.inputs[0].shape[0] or 1])
        wanted = golden.outputs[: len(outputs)]
        limit = float(np.abs(wanted).max())
        error = float(np.abs(outputs - wanted).max())
        broken = not np.isfinite(outputs).all()
        if broken or (bundle.manifest.precision == "fp32" and error > PARITY_LIMIT * limit):
            raise InputError(
                f"{bundle.manifest.name} does not compute what it was built from "
                f"(error {error:.1e} on outputs up to {limit:.1e})",
                fix="is the disk full? Otherwise report it with the model",
            )

    def _report(self, bundle: Bundle, fp32: Bundle) -> dict[str, Any]:
        """Validate a staged bundle, if only on golden images, and report its size."""
        size = report.Size(bytes=bundle.size_bytes, fp32_bytes=fp32.size_bytes)
        images = self._evaluation
        if not catalog.runs_on(bundle.manifest.target, self._host):
            return report.merge(bundle, size=size)
        if images is None:
            measure_numerics(bundle)
            return report.merge(bundle, size=size)
        return validate_bundle(
            bundle, images, self._steps, allow_overlap=self._plan.request.allow_overlap
        )

    def _check_drop(self, bundle: Bundle, measured: dict[str, Any]) -> None:
        limit = self._plan.request.max_drop_pp
        if limit is None:
            return
        if "accuracy" not in measured:
            raise InputError(
                f"--max-drop cannot be checked: {bundle.manifest.target.name} does not run here",
                fix="drop --max-drop, and validate on the device",
            )
        drop = measured["accuracy"]["drop_pp"]
        if drop > limit:
            raise LimitError(
                f"{bundle.manifest.name} loses {drop:.2g} points, more than --max-drop {limit:g}; "
                "nothing was written",
                fix="try --calibration thorough, or more calibration images",
            )


def _not_measurable(model: Identity, int8: Int8 | None) -> str:
    """Why a number called accuracy would mean nothing; empty where it would."""
    if not model.trained:
        return "its weights are random"
    if int8 and int8.record.calibration.source == "random":
        return "it was calibrated on random noise"
    return ""


def _graph_part(preprocess: Preprocess) -> tuple[str, ...]:
    """What the artifact does to pixels before the model, in order."""
    flip = ("RGB to BGR",) if preprocess.channels == "BGR" else ()
    return (*flip, "cast to float32", "scale and normalise", "NHWC to NCHW")


def _layout(output: TensorSpec, task: Task) -> str:
    axes = {2: "NC", 3: "NLC", 4: "NCHW"}.get(len(output.shape), "N…")
    return f"{axes}, {'features' if task == 'features' else 'logits'}"


def _tensor(spec: TensorSpec, layout: str) -> manifest.Tensor:
    shape: tuple[int | Literal["batch"], ...]
    shape = tuple("batch" if dim is None else dim for dim in spec.shape)
    return manifest.Tensor(name=spec.name, shape=shape, dtype=spec.dtype, layout=layout)


def _versions() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found

"""What an export was asked to do, every name resolved and every value checked, and its job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine
from vitedge.core.progress import Steps
from vitedge.core.spec import Batch, Calibration, Precision, Target
from vitedge.data.calibration import CalibrationImages
from vitedge.data.imageset import ImageSet
from vitedge.data.open import EMBEDDED, Role, Source, open_images
from vitedge.models.sources import ModelIdentity, ModelRequest, ReferenceModel


@dataclass(frozen=True)
class ExportRequest:
    """What `vitedge export` was asked to do."""

    model: ModelRequest | ReferenceModel
    targets: tuple[str, ...]
    precision: Precision = "fp32"
    calib_data: Source = ""
    calibration: str = "default"
    num_samples: int | None = None
    eval_data: Source = ""
    max_drop_pp: float | None = None
    duration_s: float = 2.0
    """Seconds of timing for each precision of a target; 0: none, and no recommendation."""
    batch: Batch | None = None
    opset: int | None = None
    output: Path = Path("artifacts")
    force: bool = False
    allow_overlap: bool = False
    keep_going: bool = False
    """Whether what a target cannot do is told and not raised, where others can."""

    @property
    def own_data(self) -> str:
        """The embedded images of its model; empty where it has none."""
        model = self.model
        name = model.identity.source if isinstance(model, ReferenceModel) else model.model
        return name or "digits" if name in (*EMBEDDED, "") else ""

    @property
    def random_weights(self) -> bool:
        """Whether its model is untrained."""
        if isinstance(self.model, ReferenceModel):
            return not self.model.identity.trained
        return self.model.random_weights


@dataclass(frozen=True)
class Plan:
    """A request with every name resolved and every check done that needs no model."""

    request: ExportRequest
    targets: tuple[Target, ...]
    recipe: Calibration | None
    """None where no images are measured: in FP32."""
    calib_data: Source
    eval_data: Source


@dataclass(frozen=True)
class Job:
    """What the steps of one export share."""

    plan: Plan
    model: ModelIdentity
    calibration: CalibrationImages | None
    """None where no images are measured."""
    evaluation: ImageSet | None
    """None where accuracy is not measured."""
    work: Path
    """The folder in which everything is built before it is published."""
    steps: Steps


def plan_export(request: ExportRequest) -> Plan:
    """Check everything about `request` that needs no model. Raises InputError."""
    machine = describe_machine(threads=0)
    targets = tuple(
        _adapt(catalog.find_target(name, machine), request)
        for name in dict.fromkeys(request.targets)
    )
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise InputError(f"targets share a name: {', '.join(names)}", fix="name each one once")
    quantizing = request.precision == "int8"
    measuring = request.precision != "fp32"
    embedded = request.own_data
    if not measuring and (request.calib_data or request.num_samples):
        raise InputError(
            "`calib_data` and `num_samples` do not apply to FP32",
            fix="add `precision='int8'` or `precision='fp16'`, or drop them",
        )
    calib_data = request.calib_data or embedded
    if quantizing and not calib_data:
        raise InputError(
            "INT8 needs calibration images, and none were given",
            fix="pass `calib_data` with a folder of images or an .npz (a few hundred that look "
            "like the real ones), or `calib_data='random'` to measure latency only",
        )
    measurable = not request.random_weights and not (quantizing and calib_data == "random")
    if request.eval_data and not measurable:
        raise InputError(
            "accuracy is not measurable with random weights or random calibration",
            fix="drop `eval_data`, or give real weights and calibration images",
        )
    eval_data = request.eval_data or (embedded if measurable else "")
    if request.max_drop_pp is not None and not 0 <= request.max_drop_pp < math.inf:
        raise InputError(
            f"`max_drop_pp={request.max_drop_pp:g}` is no limit",
            fix="pass the points of accuracy it may lose: 0 or more",
        )
    if not 0 <= request.duration_s < math.inf:
        raise InputError(
            f"duration is {request.duration_s} s",
            fix="pass `duration_s` with 0 seconds or more; 0 times nothing",
        )
    if request.max_drop_pp is not None and not (quantizing and eval_data):
        raise InputError(
            "`max_drop_pp` compares INT8 with FP32 on evaluation images",
            fix="pass `precision='int8'` and `eval_data` too",
        )
    recipe = catalog.find_calibration(request.calibration) if measuring else None
    if recipe and request.num_samples is not None:
        recipe = msgspec.structs.replace(recipe, num_samples=request.num_samples)
    return Plan(request, targets, recipe, calib_data, eval_data)


def _adapt(target: Target, request: ExportRequest) -> Target:
    """`target` with the request's batch and opset, which it must allow, and no address."""
    if request.precision not in target.precisions:
        raise InputError(
            f"target '{target.name}' does not run {request.precision}",
            fix="pass " + " or ".join(f"`precision='{p}'`" for p in target.precisions),
        )
    opset = target.opset if request.opset is None else request.opset
    if not target.opset_min <= opset <= target.opset_max:
        raise InputError(
            f"target '{target.name}' does not take opset {opset}",
            fix=f"pass `opset={target.opset_min}` to {target.opset_max}",
        )
    batch = target.batch if request.batch is None else request.batch
    return msgspec.structs.replace(target, opset=opset, batch=batch, device="")


def precisions(target: Target, precision: Precision) -> tuple[Precision, ...]:
    """What is built: FP32 to compare with, and FP16 beside INT8 where the target computes in it."""
    fp16: tuple[Precision, ...] = ("fp16",) if precision == "int8" and target.fp16_kernels else ()
    return tuple(dict.fromkeys(("fp32", *fp16, precision)))


def open_image_sets(
    plan: Plan, model: ModelIdentity, steps: Steps
) -> tuple[CalibrationImages | None, ImageSet | None]:
    """The calibration and evaluation images of `plan`, as `model` takes them. Raises InputError."""
    calibration = evaluation = None
    if plan.recipe and plan.calib_data:
        images = images_of(model, plan.calib_data, "calibration")
        calibration = CalibrationImages(images, plan.recipe, steps)
    if plan.eval_data:
        evaluation = images_of(model, plan.eval_data, "evaluation")
    return calibration, evaluation


def images_of(model: ModelIdentity, source: Source, role: Role) -> ImageSet:
    """`source` opened as `model` takes images. Raises InputError."""
    return open_images(source, role, model.preprocess, model.labels, model.task)

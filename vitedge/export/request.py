"""What an export was asked to do, every name resolved and every value checked, and its job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core import catalog
from vitedge.core.bounds import asked, check
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.fp8 import fp8_target
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Bounds
from vitedge.core.progress import Steps
from vitedge.core.spec import QUANTIZED, Batch, Calibration, Precision, Target
from vitedge.core.step_cache import StepCache
from vitedge.data.calibration import CalibrationImages
from vitedge.data.imageset import ImageSet
from vitedge.data.open import Source, has_labels, open_images
from vitedge.data.role import Role
from vitedge.export.step_keys import Keys
from vitedge.measure.accuracy.metrics import check_installed
from vitedge.models.sources import ModelIdentity, ModelRequest, ReferenceModel, check_name
from vitedge.models.zoo import OWN_DATA


@dataclass(frozen=True)
class ExportRequest:
    """What `vitedge export` was asked to do."""

    model: ModelRequest | ReferenceModel
    targets: tuple[str, ...]
    precision: Precision = "fp32"
    only: bool = False
    """Whether INT8 or FP8 is compared with FP32 alone, and no other precision is built."""
    calib_data: Source = ""
    calibration: str = "default"
    recipe: Calibration | None = None
    """In place of the one of that name."""
    num_samples: int | None = None
    eval_data: Source = ""
    max_drop_pp: float | None = None
    min_sqnr_db: float | None = None
    min_token_sqnr_db: float | None = None
    duration_s: float = 2.0
    """Seconds of timing for each precision of a target; 0: none, and no recommendation."""
    batch: Batch | None = None
    opset: int | None = None
    output: Path = Path("artifacts")
    force: bool = False
    allow_overlap: bool = False
    keep_going: bool = False
    """Whether what a target cannot do is told and not raised, where others can."""
    cache: StepCache | None = None
    """Where steps are kept and taken from; None: nowhere."""

    @property
    def bounds(self) -> Bounds:
        """What INT8 may lose."""
        return Bounds(
            max_drop_pp=self.max_drop_pp,
            min_sqnr_db=self.min_sqnr_db,
            min_token_sqnr_db=self.min_token_sqnr_db,
        )

    @property
    def own_data(self) -> str:
        """The embedded images of its model; empty where it has none."""
        model = self.model
        name = model.identity.source if isinstance(model, ReferenceModel) else model.model
        return OWN_DATA.get(str(name or "digits"), "")

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
    """None where there are none."""
    work: Path
    """The folder in which everything is built before it is published."""
    steps: Steps
    cache: StepCache | None = None
    keys: Keys | None = None
    """Of its steps in that; None without one."""


def plan_export(request: ExportRequest) -> Plan:
    """Check everything about `request` that needs no model. Raises InputError."""
    machine = describe_machine(threads=0)
    targets = tuple(target_of(name, machine, request) for name in dict.fromkeys(request.targets))
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise InputError(f"targets share a name: {', '.join(names)}", fix="name each one once")
    quantizing = request.precision in QUANTIZED
    measuring = request.precision != "fp32"
    embedded = request.own_data
    if not measuring and (request.calib_data or request.num_samples):
        raise InputError(
            "`calib_data` and `num_samples` do not apply to FP32",
            fix="add `precision='int8'` or another `precision`, or drop them",
        )
    if isinstance(request.model, ModelRequest) and isinstance(request.model.model, str):
        check_name(request.model.model)  # a misspelt reference has no data of its own
    calib_data = request.calib_data or embedded
    if quantizing and not calib_data:
        raise InputError(
            f"{request.precision.upper()} needs calibration images, and none were given",
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
    check(request.bounds)
    if not 0 <= request.duration_s < math.inf:
        raise InputError(
            f"duration is {request.duration_s} s",
            fix="pass `duration_s` with 0 seconds or more; 0 times nothing",
        )
    if request.max_drop_pp is not None and not (quantizing and eval_data):
        raise InputError(
            "`max_drop_pp` compares INT8 or FP8 with FP32 on evaluation images",
            fix="pass `precision='int8'` and `eval_data` too",
        )
    if asked(request.bounds) and not quantizing:
        raise InputError(
            f"`{next(iter(asked(request.bounds)))}` is about what INT8 keeps of FP32",
            fix="drop it, or pass `precision='int8'`",
        )
    if request.only and not quantizing:
        raise InputError(
            "`only` is about what comes beside INT8 or FP8",
            fix="drop it, or pass `precision='int8'`",
        )
    recipe = None
    if measuring:
        recipe = request.recipe or catalog.find_calibration(request.calibration)
    if recipe and recipe.engine == "nncf" and quantizing:
        from vitedge.quant import nncf_package

        if request.precision == "fp8":
            raise InputError(
                f"calibration recipe '{recipe.name}' has NNCF quantize, which makes INT8 here",
                fix="take another `calibration`, or `precision='int8'`",
            )
        nncf_package.check(targets)
    if recipe and recipe.weight_bits == 4 and request.precision == "fp8":
        raise InputError(
            f"calibration recipe '{recipe.name}' is of 4-bit weights, and FP8's are of 8 bits",
            fix="take another `calibration`, or `precision='int8'`",
        )
    if recipe and request.num_samples is not None:
        recipe = msgspec.structs.replace(recipe, num_samples=request.num_samples)
    return Plan(request, targets, recipe, calib_data, eval_data)


def target_of(name: str, machine: Host, request: ExportRequest) -> Target:
    """The target `name`, adapted to `request`.

    Raises UnavailableError where a runtime `name` computes in BF16 on other machines than this,
    InputError where FP8 is for other GPUs.
    """
    target = catalog.find_target(name, machine)
    others = [
        other
        for other in catalog.targets().values()
        if other.runtime == name and "bf16" in other.precisions
    ]
    lacking = request.precision == "bf16" and "bf16" not in target.precisions
    if lacking and name != target.name and others:
        needs = ", or ".join(
            f"{' or '.join(other.machines)} with {' or '.join(other.bf16_isa)}" for other in others
        )
        names = " or ".join(f"`targets={other.name}`" for other in others)
        raise UnavailableError(
            f"BF16 on {name} takes {needs}; this machine ({machine.machine}) is not that: "
            f"fastest here is INT8, and of floats {_floats(target)}",
            fix=f"pass {names} to build for such a machine, or `precision='int8'` for this one",
        )
    if request.precision == "fp8":
        target = fp8_target(target, machine)
    return _adapt(target, request)


def _floats(target: Target) -> str:
    """`FP32`, or those of `target` that are faster."""
    floats = [name for name, has in _computed(target).items() if has]
    return " or ".join(name.upper() for name in floats or ["fp32"])


def _computed(target: Target) -> dict[Precision, bool]:
    """Whether `target` computes in float types narrower than FP32, and not only stores them."""
    return {"fp16": target.fp16_kernels, "bf16": bool(target.bf16_options)}


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


def precisions(target: Target, request: ExportRequest) -> tuple[Precision, ...]:
    """What is built: FP32 to compare with; beside INT8 or FP8 the floats the target computes in.

    None of these with `only`.
    """
    precision = request.precision
    all_of_them = precision in QUANTIZED and not request.only
    floats = [name for name, has in _computed(target).items() if has and all_of_them]
    return tuple(dict.fromkeys(("fp32", *floats, precision)))


def open_image_sets(
    plan: Plan, model: ModelIdentity, steps: Steps
) -> tuple[CalibrationImages | None, ImageSet | None]:
    """The calibration and evaluation images of `plan`, as `model` takes them. Raises InputError."""
    calibration = evaluation = None
    role: Role = "evaluation" if labelled(plan, model) else "calibration"
    if plan.recipe and plan.calib_data:
        images = images_of(model, plan.calib_data, "calibration")
        calibration = CalibrationImages(images, plan.recipe, steps)
    if plan.eval_data:
        if role == "evaluation":
            check_installed(model.task)
        evaluation = images_of(model, plan.eval_data, role)
    return calibration, evaluation


def labelled(plan: Plan, model: ModelIdentity) -> bool:
    """Whether accuracy is measured on the evaluation images: they may have no labels where a level
    in dB is all that is asked for.
    """
    bounds = plan.request.bounds
    if not asked(bounds) or bounds.max_drop_pp is not None or not plan.eval_data:
        return True
    return has_labels(plan.eval_data, model.task)


def images_of(model: ModelIdentity, source: Source, role: Role) -> ImageSet:
    """`source` opened as `model` takes images. Raises InputError."""
    return open_images(source, role, model.preprocess, model.labels, model.task)

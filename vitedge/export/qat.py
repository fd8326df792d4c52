"""Quantization-aware training: PTQ's own quantizers, trained on, and exported as they are."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.api import AnyPath
from vitedge.core.bounds import asked, check_tokens
from vitedge.core.bounds import check as check_bounds
from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError, VitedgeError, first_few, missing
from vitedge.core.numerics import fill_batch
from vitedge.core.progress import SILENT, Steps
from vitedge.core.spec import Floats, Target, Training
from vitedge.core.toml import load_toml
from vitedge.export.job import export_model, load_model
from vitedge.export.request import ExportRequest, Plan, images_of, plan_export
from vitedge.export.result import ExportResult
from vitedge.export.stage import bundle_name
from vitedge.models.sources import ModelIdentity
from vitedge.quant.int8 import TrainedGraph

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitedge.quant.parameters import Calibrated
    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.checkpoint import LogListener
    from vitedge.quant.qat.images import Scanned
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import TrainingRun

SETTINGS = ("epochs", "batch_size", "learning_rate", "seed")
"""Of training, those that are parameters of `qat`, too."""
_CURVE_POINTS = 200


@dataclass(frozen=True)
class QatRequest:
    """What `vitedge qat` was asked to do."""

    export: ExportRequest
    """In INT8, for one target."""
    train_data: str
    training: Training
    resume: bool
    tensorboard: Path | None
    """Where TensorBoard's event files go; None: nowhere."""
    bounds: manifest.Bounds
    """Levels at which training ends."""


def settings(training: AnyPath | Training | None, given: Mapping[str, object]) -> Training:
    """Those of `training`, a file's or the defaults, with what is `given`. Raises InputError."""
    changes = {name: value for name, value in given.items() if value is not None}
    if not isinstance(training, Training):
        training = load_toml(Path(training), Training) if training else Training()
    try:
        return msgspec.convert(msgspec.structs.asdict(training) | changes, Training)
    except msgspec.ValidationError as error:
        wrong, _, key = str(error).partition(" - at `$.")
        raise InputError(f"`{key.rstrip('`')}`: {wrong}") from error


def run(request: QatRequest, steps: Steps) -> list[ExportResult]:
    """Quantize a model, train it on, and export it; nothing in a process that only trains along.

    Raises what `job.export` does, InputError for training data, checkpoints and losses that are
    of no use, and LimitError where training never meets its bounds.
    """
    check_bounds(request.bounds)
    if not request.train_data and not request.export.own_data:
        raise InputError("no images to train on", fix="pass `train_data` with a folder or an .npz")
    try:
        from vitedge.quant.qat import team, tensorboard
        from vitedge.quant.qat.checkpoint import no_listener
    except ImportError as error:
        raise missing(error.name or "accelerate", "qat") from error
    if request.tensorboard:
        tensorboard.check()
    accelerator = team.gather()
    if not accelerator.is_main_process:
        try:
            _train(team.share(accelerator, None), accelerator, SILENT, no_listener)
        except VitedgeError as error:  # the first process says what it is
            raise SystemExit(error.exit_code) from error
        return []
    waiting = True  # the other processes, to be told what to train

    def train(calibrated: Calibrated, golden: Golden) -> TrainedGraph:
        nonlocal waiting
        outputs = (golden.outputs, *golden.further.values())
        orders = calibrated.orders or ("",) * len(outputs)
        axes = (output.ndim for output in outputs)
        check_tokens(request.bounds, model.identity.name, zip(axes, orders, strict=True))
        start = _start(request, training_set, model.identity, calibrated)
        waiting = False
        team.share(accelerator, start)
        with tensorboard.watching(request.tensorboard) as listener:
            student, training_run = _train(start, accelerator, steps, listener)
        record = _record(request, training_set, training_run, accelerator.num_processes)
        return TrainedGraph(_learned(calibrated, student), record, _outputs(student, golden.images))

    try:
        plan = plan_export(request.export)
        if plan.recipe and plan.recipe.engine != "vitedge":
            raise InputError(
                f"calibration recipe '{plan.recipe.name}' has `engine` {plan.recipe.engine}, and "
                "training goes on from our own PTQ",
                fix="pass `calibration='default'`",
            )
        model = load_model(plan, steps)
        training_set = check(request, plan, model.identity, accelerator.num_processes, steps)
        results = export_model(plan, model, steps, train)
    except VitedgeError as error:
        if waiting:
            team.share(accelerator, error)
        raise
    shutil.rmtree(training_set.folder, ignore_errors=True)  # the artifact is there
    return results


@dataclass(frozen=True)
class TrainingSet:
    """The images of a run, checked and split, and where its checkpoints lie."""

    source: str
    digest: str
    """SHA-256 over those of all images in order."""
    skipped: dict[str, int]
    """Images left out, by reason."""
    training: list[int]
    """Indices of the images to train on."""
    held_out: list[int]
    """Of those kept apart, to choose the best step."""
    missing_classes: list[str]
    """The model's classes that no image shows."""
    fingerprint: dict[str, str]
    """A digest of everything that decides the outcome, by what it is of."""
    folder: Path
    """Of the checkpoints."""


def check(
    request: QatRequest, plan: Plan, model: ModelIdentity, processes: int, steps: Steps
) -> TrainingSet:
    """Check all that needs no export, and split the training images. Raises InputError."""
    from vitedge.quant.qat import checkpoint, images

    settings = request.training
    (target,) = plan.targets
    folder = request.export.output / f".{bundle_name(model, target, 'int8')}.qat"
    _check_folder(request, folder)
    source = request.train_data or model.source  # an embedded one has its own
    opened = images_of(model, source, "calibration")
    forbidden: set[str] = set()
    if plan.eval_data:
        evaluation = images_of(model, plan.eval_data, "evaluation")
        if not request.export.allow_overlap:
            for batch in evaluation.batches(64):
                forbidden.update(batch.digests)
    scanned = images.scan(opened, forbidden, steps)
    training, held_out = images.split(scanned, settings.held_out, settings.seed)
    images.check_batches(len(training), settings, target.batch_size, processes)
    missing_classes = images.missing_classes(scanned, model.labels)
    if settings.labels:
        _check_labels(source, scanned.labels, missing_classes, model)
    fingerprint = _fingerprint(request, scanned, model, target)
    if request.resume and (folder / checkpoint.LAST).exists():
        checkpoint.read(folder / checkpoint.LAST, fingerprint)
    return TrainingSet(
        source=source,
        digest=hashlib.sha256("".join(scanned.digests).encode()).hexdigest(),
        skipped=scanned.skipped,
        training=training,
        held_out=held_out,
        missing_classes=missing_classes,
        fingerprint=fingerprint,
        folder=folder.resolve(),
    )


def _check_folder(request: QatRequest, folder: Path) -> None:
    if request.resume and not folder.is_dir():
        raise InputError(
            f"there is no run to resume in {folder.parent}: {folder.name} is not there",
            fix="drop `resume` to start one, or give the `output` it was started with",
        )
    if folder.is_dir() and not (request.resume or request.export.force):
        raise InputError(
            f"{folder} holds a run that was not finished",
            fix="pass `resume=True` to go on, or `force=True` to start anew",
        )


def _check_labels(
    source: str, labels: Sequence[int], missing_classes: Sequence[str], model: ModelIdentity
) -> None:
    """The cross-entropy with labels needs one for every image, and every class."""
    if model.task != "classification":
        raise InputError(
            f"`labels` trains classifiers, and {model.name} is for {model.task}",
            fix="set `labels` to 0 and train by distillation",
        )
    unlabelled = sum(label < 0 for label in labels)
    if unlabelled:
        raise InputError(
            f"{unlabelled} of {len(labels)} images of '{source}' have no label of the model's",
            fix="name their folders as the model's classes, or set `labels` to 0",
        )
    if missing_classes:
        raise InputError(
            f"'{source}' has no image of {len(missing_classes)} of the model's classes: "
            f"{first_few(missing_classes)}",
            fix="add some, or set `labels` to 0 and train by distillation",
        )


def _fingerprint(
    request: QatRequest, scanned: Scanned, model: ModelIdentity, target: Target
) -> dict[str, str]:
    """A digest of everything that decides the outcome, by what it is of."""
    return {
        "the model": _digest(model.source, model.weights_sha256, model.preprocess),
        "the target": _digest(target),
        "the calibration": _digest(
            request.export.calib_data, request.export.calibration, request.export.num_samples
        ),
        "the training images": _digest(scanned.digests),
        "the training settings": _digest(_decisive(request.training)),
    }


@dataclass(frozen=True)
class _Start:
    """All that a process needs to train along."""

    path: Path
    """PTQ's FP32 graph, equalized."""
    placed: Placement
    scales: dict[str, NDArray[np.float32]]
    """PTQ's, of each weight."""
    floats: Floats
    model: ModelIdentity
    training_set: TrainingSet
    settings: Training
    bounds: manifest.Bounds
    orders: tuple[str, ...]
    """What chooses the order of each output."""


def _start(
    request: QatRequest, training_set: TrainingSet, model: ModelIdentity, calibrated: Calibrated
) -> _Start:
    """Where training starts from what PTQ gave; with `force`, another run is only now given up."""
    from vitedge.quant.qdq import quantizers

    placed, scales = quantizers(calibrated)
    if not request.resume:
        shutil.rmtree(training_set.folder, ignore_errors=True)
    training_set.folder.mkdir(exist_ok=True)
    return _Start(
        path=calibrated.path.resolve(),
        placed=placed,
        scales=scales,
        floats=calibrated.target.floats,
        model=model,
        training_set=training_set,
        settings=request.training,
        bounds=request.bounds,
        orders=tuple(calibrated.orders),
    )


def _learned(calibrated: Calibrated, student: Network) -> Calibrated:
    """`calibrated` with the weights and scales of `student`."""
    from vitedge.graph.external import with_constants
    from vitedge.quant.parameters import Learned

    path = calibrated.path.with_name("trained.onnx")
    with_constants(calibrated.path, student.trained_weights(), path)
    learned = Learned(student.activation_scales(), student.weight_scales())
    return replace(calibrated, path=path, learned=learned)


def _record(
    request: QatRequest, training_set: TrainingSet, training_run: TrainingRun, processes: int
) -> manifest.Trained:
    """The manifest's record of a run."""
    looks = [line for line in training_run.log if "held_out" in line]
    return manifest.Trained(
        settings=request.training,
        source=training_set.source,
        images=len(training_set.training),
        held_out=len(training_set.held_out),
        digest=training_set.digest,
        skipped=training_set.skipped,
        missing_classes=tuple(training_set.missing_classes),
        processes=processes,
        steps=training_run.steps,
        best_step=training_run.best_step,
        bounds=request.bounds if asked(request.bounds) else None,
        looks=tuple(manifest.HeldOut(step=look["step"], **look["held_out"]) for look in looks),
        curve=_curve([line for line in training_run.log if "loss" in line]),
    )


def _train(
    start: _Start, accelerator: Accelerator, steps: Steps, listener: LogListener
) -> tuple[Network, TrainingRun]:
    import onnx
    import torch

    from vitedge.measure.accuracy.output_error import OutputErrors
    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.job import TrainingJob
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import train

    settings, training_set = start.settings, start.training_set
    every_output = bool(asked(start.bounds)) or start.model.task == "detection"
    graph = onnx.load(start.path, load_external_data=False).graph
    names = [output.name for output in graph.output]
    student = Network(
        start.path,
        start.placed,
        {name: torch.from_numpy(scales) for name, scales in start.scales.items()},
        start.floats,
        learned=settings.scales == "learned",
        checkpointing=settings.gradient_checkpointing,
        every_output=every_output,
    )
    teacher = Network(
        start.path, Placement(), {}, start.floats, learned=False, every_output=every_output
    )
    job = TrainingJob(
        student=student,
        teacher=teacher,
        images=images_of(start.model, training_set.source, "calibration"),
        training=training_set.training,
        held_out=training_set.held_out,
        task=start.model.task,
        settings=settings,
        folder=training_set.folder,
        fingerprint=training_set.fingerprint,
        errors=partial(OutputErrors, names, start.model.task, start.orders),
        bounds=start.bounds,
    )
    return student, train(job, accelerator, steps, listener)


def _outputs(student: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What was trained, for the golden images."""
    import torch

    filled = torch.from_numpy(fill_batch(images, student.batch))
    student.cpu()
    with torch.no_grad():
        logits = student(filled).logits[: len(images)]
    return np.asarray(logits.double().numpy())


def _decisive(settings: Training) -> Training:
    """`settings` without what may change from one part of a run to the next."""
    return msgspec.structs.replace(
        settings, learning_rate=1.0, scale_learning_rate=1.0, clip_norm=1.0
    )


def _digest(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _curve(lines: Sequence[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    """(step, loss), means over equal stretches where there are many steps."""
    stretch = -(-len(lines) // _CURVE_POINTS)
    parts = [lines[i : i + stretch] for i in range(0, len(lines), max(1, stretch))]
    return tuple(
        (part[-1]["step"], float(np.mean([line["loss"] for line in part]))) for part in parts
    )

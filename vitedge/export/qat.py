"""Quantization-aware training: PTQ's own quantizers, trained on, and exported as they are."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge import runtimes
from vitedge.core import manifest
from vitedge.core.bundle import Bundle, Golden
from vitedge.core.errors import InputError, VitedgeError, missing
from vitedge.core.progress import SILENT, Steps
from vitedge.core.spec import Floats, Preprocess, Target, Task, Training
from vitedge.data.imageset import ImageSet
from vitedge.data.open import EMBEDDED, open_images
from vitedge.export import job as pipeline
from vitedge.export.request import ExportRequest, Plan
from vitedge.export.result import Made
from vitedge.export.stage import bundle_name
from vitedge.measure.accuracy.validation import predict_all
from vitedge.models.sources import ModelIdentity

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.checkpoint import Watch
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import Trained
    from vitedge.quant.settle import Calibrated

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


def run(request: QatRequest, steps: Steps) -> list[Made]:
    """Quantize a model, train it on, and export it; nothing in a process that only trains along.

    Raises what `pipeline.export` does, and InputError for training data, checkpoints and losses
    that are of no use.
    """
    if not request.train_data and (request.export.model.model or "digits") not in EMBEDDED:
        raise InputError("no images to train on", fix="pass --train-data with a folder or an .npz")
    try:
        from vitedge.quant.qat import team, tensorboard
        from vitedge.quant.qat.checkpoint import unwatched
    except ImportError as error:
        raise missing(error.name or "accelerate", "qat") from error
    if request.tensorboard:
        tensorboard.check()
    accelerator = team.gather()
    if not accelerator.is_main_process:
        try:
            _train(team.share(accelerator, None), accelerator, SILENT, unwatched)
        except VitedgeError as error:  # the first process says what it is
            raise SystemExit(error.exit_code) from error
        return []
    trainer = _Trainer(request, accelerator, steps)
    try:
        made = pipeline.export(request.export, steps, trainer)
    except VitedgeError as error:
        if not trainer.joined:
            team.share(accelerator, error)
        raise
    trainer.finish()
    return made


@dataclass(frozen=True)
class _Start:
    """All that a process needs to train along."""

    path: Path
    """PTQ's FP32 graph, equalized."""
    placed: Placement
    scales: dict[str, NDArray[np.float32]]
    """PTQ's, of each weight."""
    floats: Floats
    train_data: str
    preprocess: Preprocess
    labels: Sequence[str]
    task: Task
    training: list[int]
    held_out: list[int]
    of: dict[str, str]
    folder: Path
    """Of the checkpoints."""
    how: Training


class _Trainer:
    """Trains what PTQ gave, in the first of the processes."""

    def __init__(self, request: QatRequest, accelerator: Accelerator, steps: Steps) -> None:
        self._request, self._accelerator, self._steps = request, accelerator, steps
        self.joined = False
        """Whether the other processes know what to train."""

    def prepare(self, plan: Plan, model: ModelIdentity) -> None:
        from vitedge.quant.qat import checkpoint, images

        request, how = self._request, self._request.training
        (target,) = plan.targets
        self._folder = request.export.output / f".{bundle_name(model, target, 'int8')}.qat"
        self._check_folder()
        self._data = request.train_data or model.source  # an embedded one has its own
        opened = open_images(self._data, "calibration", model.preprocess, model.labels, model.task)
        evaluation: ImageSet | None = None
        if plan.eval_data:
            evaluation = open_images(
                plan.eval_data, "evaluation", model.preprocess, model.labels, model.task
            )
        forbidden: set[str] = set()
        if evaluation is not None and not request.export.allow_overlap:
            for batch in evaluation.batches(64):
                forbidden.update(batch.digests)
        self._found = images.scan(opened, forbidden, self._steps)
        self._training, self._held_out = images.split(self._found, how.held_out, how.seed)
        graph_batch = 1 if target.batch == "dynamic" else target.batch
        processes = self._accelerator.num_processes
        images.check_batches(len(self._training), how, graph_batch, processes)
        self._missing = images.missing_classes(self._found, model.labels)
        if how.labels:
            self._check_labels(model)
        self._of = self._describe(model, target)
        if request.resume and (self._folder / checkpoint.LAST).exists():
            checkpoint.read(self._folder / checkpoint.LAST, self._of)

    def _check_folder(self) -> None:
        folder, request = self._folder, self._request
        if request.resume and not folder.is_dir():
            raise InputError(
                f"there is no run to resume in {folder.parent}: {folder.name} is not there",
                fix="drop --resume to start one, or give the --output it was started with",
            )
        if folder.is_dir() and not (request.resume or request.export.force):
            raise InputError(
                f"{folder} holds a run that was not finished",
                fix="pass --resume to go on, or --force to start anew",
            )

    def _check_labels(self, model: ModelIdentity) -> None:
        """The cross-entropy with labels needs one for every image, and every class."""
        if model.task != "classification":
            raise InputError(
                f"`labels` trains classifiers, and {model.name} is for {model.task}",
                fix="set `labels` to 0 and train by distillation",
            )
        unlabelled = sum(label < 0 for label in self._found.labels)
        if unlabelled:
            raise InputError(
                f"{unlabelled} of {len(self._found.labels)} images of '{self._data}' have no label "
                "of the model's",
                fix="name their folders as the model's classes, or set `labels` to 0",
            )
        if self._missing:
            shown = ", ".join(self._missing[:5])
            raise InputError(
                f"'{self._data}' has no image of {len(self._missing)} of the model's classes: "
                f"{shown}{', …' if len(self._missing) > 5 else ''}",
                fix="add some, or set `labels` to 0 and train by distillation",
            )

    def train(
        self, model: ModelIdentity, target: Target, golden: Golden, calibrated: Calibrated
    ) -> tuple[Calibrated, manifest.Trained]:
        from vitedge.graph.external import with_constants
        from vitedge.quant.qat import team, tensorboard
        from vitedge.quant.qdq import quantizers
        from vitedge.quant.settle import Learned

        placed, scales = quantizers(calibrated)
        if not self._request.resume:  # with --force: only now is another run given up
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(exist_ok=True)
        start = _Start(
            path=calibrated.path.resolve(),
            placed=placed,
            scales=scales,
            floats=target.quantization.floats,
            train_data=self._data,
            preprocess=model.preprocess,
            labels=model.labels,
            task=model.task,
            training=self._training,
            held_out=self._held_out,
            of=self._of,
            folder=self._folder.resolve(),
            how=self._request.training,
        )
        self.joined = True
        team.share(self._accelerator, start)
        with tensorboard.watching(self._request.tensorboard) as watch:
            student, result = _train(start, self._accelerator, self._steps, watch)
        self._outputs = _outputs(student, golden.images)
        path = calibrated.path.with_name("trained.onnx")
        with_constants(calibrated.path, student.trained_weights(), path)
        learned = Learned(student.activation_scales(), student.weight_scales())
        record = self._record(result)
        return replace(calibrated, path=path, learned=learned), record

    def _describe(self, model: ModelIdentity, target: Target) -> dict[str, str]:
        """A digest of everything that decides the outcome, by what it is of."""
        request = self._request
        return {
            "the model": _digest(model.source, model.weights_sha256, model.preprocess),
            "the target": _digest(target),
            "the calibration": _digest(
                request.export.calib_data, request.export.calibration, request.export.num_samples
            ),
            "the training images": _digest(self._found.digests),
            "the training settings": _digest(_decisive(request.training)),
        }

    def _record(self, result: Trained) -> manifest.Trained:
        found = self._found
        looks = [line for line in result.log if "held_out" in line]
        return manifest.Trained(
            settings=self._request.training,
            source=self._data,
            images=len(self._training),
            held_out=len(self._held_out),
            digest=hashlib.sha256("".join(found.digests).encode()).hexdigest(),
            skipped=found.skipped,
            missing_classes=tuple(self._missing),
            processes=self._accelerator.num_processes,
            steps=result.steps,
            best_step=result.best_step,
            looks=tuple(manifest.HeldOut(step=look["step"], **look["held_out"]) for look in looks),
            curve=_curve([line for line in result.log if "loss" in line]),
        )

    def parity(self, bundle: Bundle) -> float | None:
        if not runtimes.runs_here(bundle):
            return None
        with runtimes.open_session(bundle) as session:
            got = predict_all(session, bundle.golden().images).astype(np.float64)
        return float(np.linalg.norm(got - self._outputs) / np.linalg.norm(self._outputs))

    def finish(self) -> None:
        """Remove the checkpoints of a run whose artifact is there."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _train(
    start: _Start, accelerator: Accelerator, steps: Steps, watch: Watch
) -> tuple[Network, Trained]:
    import torch

    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import Job, train

    how = start.how
    student = Network(
        start.path,
        start.placed,
        {name: torch.from_numpy(scales) for name, scales in start.scales.items()},
        start.floats,
        learned=how.scales == "learned",
        checkpointing=how.gradient_checkpointing,
    )
    teacher = Network(start.path, Placement(), {}, start.floats, learned=False)
    images = open_images(
        start.train_data, "calibration", start.preprocess, start.labels, start.task
    )
    job = Job(student, teacher, images, start.training, start.held_out, start.task, start.of)
    return student, train(job, how, start.folder, accelerator, steps, watch)


def _outputs(student: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What was trained, for the golden images."""
    import torch

    short = -len(images) % student.batch
    padded = np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
    student.cpu()
    with torch.no_grad():
        logits = student(torch.from_numpy(padded)).logits[: len(images)]
    return np.asarray(logits.double().numpy())


def _decisive(how: Training) -> Training:
    """`how` without what may change from one part of a run to the next."""
    return msgspec.structs.replace(how, learning_rate=1.0, scale_learning_rate=1.0, clip_norm=1.0)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _curve(lines: Sequence[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    """(step, loss), means over equal stretches where there are many steps."""
    stretch = -(-len(lines) // _CURVE_POINTS)
    parts = [lines[i : i + stretch] for i in range(0, len(lines), max(1, stretch))]
    return tuple((part[-1]["step"], float(np.mean([x["loss"] for x in part]))) for part in parts)

"""What a training run was asked for, and its images, checked and split before any export."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vitedge.core import manifest
from vitedge.core.errors import InputError, first_few
from vitedge.core.progress import Steps
from vitedge.core.spec import Target, Training
from vitedge.export.request import ExportRequest, Plan, images_of
from vitedge.export.stage import bundle_name
from vitedge.models.sources import ModelIdentity

if TYPE_CHECKING:
    from vitedge.quant.qat.images import Scanned


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


def checked(
    request: QatRequest, plan: Plan, model: ModelIdentity, processes: int, steps: Steps
) -> TrainingSet:
    """The images of `request`, of which all is checked that needs no export.

    Raises InputError for images, labels, settings and checkpoints that are of no use.
    """
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


def _decisive(settings: Training) -> Training:
    """`settings` without what may change from one part of a run to the next."""
    return msgspec.structs.replace(
        settings, learning_rate=1.0, scale_learning_rate=1.0, clip_norm=1.0
    )


def _digest(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()

"""A training job, and what its student is worth: in float32, as its artifact computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitedge.core.numerics import fill_batch
from vitedge.core.spec import WITH_CLASSES, Task, Training
from vitedge.data.imageset import Batch, ImageSet
from vitedge.quant.qat.loss import Mixed, NetworkOutputs, loss
from vitedge.quant.qat.network import Network


@dataclass(frozen=True)
class TrainingJob:
    """What is trained, on what, and how."""

    student: Network
    teacher: Network
    images: ImageSet
    training: list[int]
    """Indices of the images to train on."""
    held_out: list[int]
    """Of those that decide which checkpoint is best."""
    task: Task
    settings: Training
    folder: Path
    """Of the checkpoints."""
    fingerprint: dict[str, str]
    """A digest of everything that decides the outcome, by what it is of."""


@torch.no_grad()
def measure(job: TrainingJob, device: torch.device) -> tuple[float, float | None]:
    """Loss and accuracy of the student on the images held out.

    Accuracy is the share of images classified as labelled or, unlabelled, as the teacher does; None
    of what has no classes.
    """
    total = right = count = 0.0
    graph_batch = job.student.batch
    size = max(1, job.settings.batch_size // graph_batch) * graph_batch
    for batch in job.images.batches(size, order=job.held_out):
        images, labels = on_device(batch, device)
        filled = torch.from_numpy(fill_batch(batch.images, graph_batch)).to(device)
        n = len(images)
        outputs, reference = (
            NetworkOutputs(*(values[:n] for values in network(filled)))
            for network in (job.student, job.teacher)
        )
        whole = Mixed(images, labels, labels, 1.0)
        total += n * float(loss(outputs, reference, whole, job.task, job.settings))
        if job.task in WITH_CLASSES:
            right += _right(outputs.logits, reference.logits, labels)
        count += n
    return total / count, right / count if job.task in WITH_CLASSES else None


def on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, H, W, 3) uint8 and labels (B, …) int64."""
    labels = torch.from_numpy(np.asarray(batch.labels, np.int64))
    return torch.from_numpy(batch.images).to(device), labels.to(device)


def _right(logits: Tensor, teacher: Tensor, labels: Tensor) -> float:
    """Images, or pixels as shares of one, with the right class: the teacher's where unlabelled."""
    classes = teacher.argmax(dim=1)
    if labels.shape == classes.shape:
        classes = torch.where(labels >= 0, labels, classes)
    hits = (logits.argmax(dim=1) == classes).float()
    return float(hits.flatten(1).mean(dim=1).sum() if hits.ndim > 1 else hits.sum())

"""What a student is worth on images that were kept apart: in float32, as its artifact computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vitedge.core.numerics import fill_batch
from vitedge.core.spec import Task, Training
from vitedge.data.imageset import Batch, ImageSet
from vitedge.quant.qat.loss import Mixed, NetworkOutputs, loss
from vitedge.quant.qat.network import Network


@dataclass(frozen=True)
class HeldOutScore:
    """Of one look at the images."""

    loss: float
    accuracy: float | None
    """Share of images classified as labelled or, unlabelled, as the teacher does; None of
    features."""


@torch.no_grad()
def measure(
    student: Network,
    teacher: Network,
    images: ImageSet,
    indices: Sequence[int],
    task: Task,
    settings: Training,
    device: torch.device,
) -> HeldOutScore:
    """Loss and accuracy of `student` on the images at `indices`."""
    total = right = count = 0.0
    size = max(1, settings.batch_size // student.batch) * student.batch
    for batch in images.batches(size, order=list(indices)):
        n = len(batch.images)
        pictures, labels = on_device(_filled(batch, student.batch), device)
        outputs, reference = (_first(network(pictures), n) for network in (student, teacher))
        whole = Mixed(pictures[:n], labels[:n], labels[:n], 1.0)
        total += n * float(loss(outputs, reference, whole, task, settings))
        if task != "features":
            right += _right(outputs.logits, reference.logits, whole.labels)
        count += n
    return HeldOutScore(total / count, None if task == "features" else right / count)


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


def _filled(batch: Batch, multiple: int) -> Batch:
    """`batch` with its last image repeated, to a multiple of what the graph takes."""
    images, labels = (fill_batch(values, multiple) for values in (batch.images, batch.labels))
    return replace(batch, images=images, labels=labels)


def _first(outputs: NetworkOutputs, count: int) -> NetworkOutputs:
    return NetworkOutputs(outputs.logits[:count], outputs.tokens[:count])

"""A training job, and what its student is worth: in float32, as its artifact computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitedge.core.bounds import asked, levels
from vitedge.core.manifest import Bounds, Losses
from vitedge.core.numerics import fill_batch
from vitedge.core.report import Numerics
from vitedge.core.spec import ONE_CLASS, Task, Training
from vitedge.data.imageset import Batch, ImageSet
from vitedge.quant.qat.loss import Mixed, NetworkOutputs, loss
from vitedge.quant.qat.network import Network


class OutputErrors(Protocol):
    """Error of every output (n, …) against FP32's, over batches."""

    def update(self, fp32: Sequence[NDArray[Any]], artifact: Sequence[NDArray[Any]]) -> None: ...

    def result(self, data: str) -> Numerics: ...


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
    errors: Callable[[], OutputErrors]
    """Begins to compare the student's outputs with the teacher's."""
    bounds: Bounds
    """Training ends where the student keeps these levels; it has no others."""


class Look(NamedTuple):
    """What the student is worth on the images held out."""

    loss: float
    accuracy: float | None
    """Share of images classified as labelled or, unlabelled, as the teacher does; None of what has
    no classes."""
    kept: Losses | None
    """What it keeps of the teacher's outputs; None where no level is asked for."""


@torch.no_grad()
def measure(job: TrainingJob, device: torch.device) -> Look:
    """What the student is worth on the images held out."""
    errors = job.errors() if asked(job.bounds) else None
    total = right = count = 0.0
    graph_batch = job.student.batch
    size = max(1, job.settings.batch_size // graph_batch) * graph_batch
    for batch in job.images.batches(size, order=job.held_out):
        images, labels = on_device(batch, device)
        filled = torch.from_numpy(fill_batch(batch.images, graph_batch)).to(device)
        n = len(images)
        outputs, reference = (_first(network(filled), n) for network in (job.student, job.teacher))
        whole = Mixed(images, labels, labels, 1.0)
        total += n * float(loss(outputs, reference, whole, job.task, job.settings))
        if job.task in ONE_CLASS:
            right += _right(outputs.logits, reference.logits, labels)
        if errors:
            errors.update(_arrays(reference), _arrays(outputs))
        count += n
    return Look(
        total / count,
        right / count if job.task in ONE_CLASS else None,
        levels(errors.result("held out")) if errors else None,
    )


def _first(outputs: NetworkOutputs, n: int) -> NetworkOutputs:
    """Those of the first `n` images."""
    further = tuple(output[:n] for output in outputs.further)
    return NetworkOutputs(outputs.logits[:n], outputs.tokens[:n], further)


def _arrays(outputs: NetworkOutputs) -> list[NDArray[np.float32]]:
    """Every output of the graph, the main one first."""
    return [output.detach().float().cpu().numpy() for output in (outputs.logits, *outputs.further)]


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

"""What QAT minimises: the distance from the FP32 model and, if asked, from the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vitedge.core.spec import ONE_CLASS, Task, Training
from vitedge.data.imageset import UNLABELLED


class NetworkOutputs(NamedTuple):
    """Of one forward pass."""

    logits: Tensor
    """(B, classes), (B, classes, h, w), or what has no classes, (B, …)."""
    tokens: Tensor
    """What the last LayerNorm gives: (B, tokens, channels) of a ViT."""
    further: tuple[Tensor, ...] = ()
    """The other outputs (B, …); a detector's boxes first."""


@dataclass(frozen=True)
class Mixed:
    """Images (B, H, W, 3), and their labels (B,) with what share of each image they are of."""

    images: Tensor
    labels: Tensor
    others: Tensor
    """Labels of the images mixed in."""
    share: float
    """Of `labels`; 1 where nothing is mixed in."""


def loss(
    student: NetworkOutputs, teacher: NetworkOutputs, batch: Mixed, task: Task, settings: Training
) -> Tensor:
    """The weighted sum of the losses that `settings` ask for, a mean over the batch.

    Every output is distilled; what the further ones are is not known, so none has classes.
    """
    total = student.logits.new_zeros(())
    if settings.distillation:
        distance = distillation(student.logits, teacher.logits, task, settings.temperature)
        errors = [_relative_error] * len(student.further)
        if task == "detection":
            errors[0] = _of_boxes
        for error, output, wanted in zip(errors, student.further, teacher.further, strict=True):
            distance = distance + error(output, wanted)
        total = total + settings.distillation * distance
    if settings.features:
        total = total + settings.features * _relative_error(student.tokens, teacher.tokens)
    if settings.labels:
        entropy = batch.share * _cross_entropy(student.logits, batch.labels)
        if batch.share < 1:
            entropy = entropy + (1 - batch.share) * _cross_entropy(student.logits, batch.others)
        total = total + settings.labels * entropy
    return total


def distillation(student: Tensor, teacher: Tensor, task: Task, temperature: float) -> Tensor:
    """KL divergence of the softmaxes at `temperature` (Hinton 2015), a mean over images, pixels.

    Of what has no classes: the squared error relative to the teacher's power.
    """
    if task not in ONE_CLASS:
        return _relative_error(student, teacher)
    log_student, log_teacher = (
        F.log_softmax(logits.float() / temperature, dim=1) for logits in (student, teacher)
    )
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()
    return divergence * temperature**2


def _of_boxes(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared error of boxes (B, queries, 4), relative to how far apart the teacher's are."""
    student, teacher = student.float(), teacher.float()
    spread = (teacher - teacher.mean(dim=1, keepdim=True)).square().mean()
    return (student - teacher).square().mean() / spread.clamp(min=1e-12)


def _relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Power of the error relative to the teacher's."""
    student, teacher = student.float(), teacher.float()
    power = teacher.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return (student - teacher).square().mean() / power


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED)


def mix(images: Tensor, labels: Tensor, settings: Training, random: torch.Generator) -> Mixed:
    """Images (B, H, W, 3) uint8 as `settings` augment them.

    Mirrors some, then mixup (Zhang 2017) or CutMix (Yun 2019), either with like chance where both
    are asked for; each image's partner is another of the batch.
    """
    if settings.flip:
        mirrored = torch.rand(len(images), generator=random) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1).to(images.device), images.flip(2), images)
    if not settings.mixup and not settings.cutmix:
        return Mixed(images, labels, labels, 1.0)
    order = torch.randperm(len(images), generator=random).to(images.device)
    cut = not settings.mixup or (
        bool(settings.cutmix) and bool(torch.rand((), generator=random) < 0.5)
    )
    alpha = settings.cutmix if cut else settings.mixup
    share = _beta(alpha, random)
    if not cut:
        mixed = share * images.float() + (1 - share) * images[order].float()
        return Mixed(mixed.round().to(torch.uint8), labels, labels[order], share)
    height, width = images.shape[1:3]
    rows, columns = (max(1, round(side * (1 - share) ** 0.5)) for side in (height, width))
    top = int(torch.randint(height - rows + 1, (), generator=random))
    left = int(torch.randint(width - columns + 1, (), generator=random))
    box = (slice(None), slice(top, top + rows), slice(left, left + columns))
    images = images.clone()
    images[box] = images[order][box]
    return Mixed(images, labels, labels[order], 1 - rows * columns / (height * width))


def _beta(alpha: float, random: torch.Generator) -> float:
    """A draw from Beta(α, α), by Jöhnk's method: the generator of torch alone decides it."""
    while True:
        u, v = torch.rand(2, generator=random, dtype=torch.float64).pow(1 / alpha).tolist()
        if 0 < u + v <= 1:
            return float(u / (u + v))

"""Training images: looked at once, split, and dealt to steps and processes, the same every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.spec import Training
from vitedge.data.imageset import UNLABELLED, Batch, ImageSet

_SCANNED = 64
_HELD_OUT_MAX = 2000
"""More tell no more of which checkpoint is best."""


@dataclass(frozen=True)
class Scanned:
    """What a pass over all training images has found."""

    usable: tuple[int, ...]
    """Indices into the set."""
    labels: tuple[int, ...]
    """Of the usable ones: class indices, -1 where unlabelled."""
    digests: tuple[str, ...]
    """Likewise: first 16 hex digits of the SHA-256 of each image's (H, W, 3) bytes."""
    skipped: dict[str, int]
    """Reason -> images."""


def scan(images: ImageSet, forbidden: Collection[str], steps: Steps) -> Scanned:
    """Decode every image once.

    Raises InputError where none is usable, or one is among the `forbidden` digests: those of the
    evaluation images.
    """
    labels: list[int] = []
    digests: list[str] = []
    for batch in images.batches(_SCANNED):
        labels += [int(label) for label in batch.labels]
        digests += batch.digests
        steps("looking at the training images", len(digests), len(images))
    usable = [index for index in range(len(images)) if index not in images.unusable]
    shared = len(set(digests) & set(forbidden))
    if shared:
        raise InputError(
            f"{shared} images of '{images.name}' are evaluation images, too: accuracy would be "
            "measured on what was trained on",
            fix="keep the two sets apart, or pass `allow_overlap=True`",
        )
    return Scanned(tuple(usable), tuple(labels), tuple(digests), dict(images.skipped))


def split(scanned: Scanned, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The indices to train on, and those kept apart: a like share of each class, at least one.

    Copies of an image are all on one side.
    """
    order = np.random.RandomState(seed).permutation(len(scanned.usable))
    count = min(_HELD_OUT_MAX, max(1, round(share * len(order))))
    classes: dict[int, list[int]] = {}
    for place in order.tolist():
        classes.setdefault(scanned.labels[place], []).append(place)
    apart: list[int] = []
    for members in classes.values():
        apart += members[: max(1, round(count * len(members) / len(order)))]
    held_out = {scanned.digests[place] for place in apart}
    training = [
        i for i, d in zip(scanned.usable, scanned.digests, strict=True) if d not in held_out
    ]
    return training, sorted(scanned.usable[place] for place in apart)


def missing_classes(scanned: Scanned, labels: Sequence[str]) -> list[str]:
    """The model's classes that no image has; none where the images are unlabelled."""
    seen = Counter(label for label in scanned.labels if label != UNLABELLED)
    return [name for index, name in enumerate(labels) if not seen[index]] if seen else []


def check_batches(count: int, settings: Training, graph_batch: int, processes: int) -> None:
    """Raises InputError where `count` images do not fill a step, or a step cannot be shared."""
    parts = processes * settings.accumulate * graph_batch
    if settings.batch_size % parts:
        raise InputError(
            f"a batch of {settings.batch_size} images cannot be shared by {processes} processes in "
            f"{settings.accumulate} parts of {graph_batch} or a multiple",
            fix=f"set batch_size to a multiple of {parts}",
        )
    if count < settings.batch_size:
        raise InputError(
            f"{count} images to train on are less than a batch of {settings.batch_size}",
            fix="give more images, or a smaller batch size",
        )


def deal(
    images: ImageSet,
    indices: Sequence[int],
    settings: Training,
    *,
    epoch: int,
    first_step: int,
    process: int,
    processes: int,
) -> Iterator[Batch]:
    """The share of one process of every step of an epoch from `first_step` on.

    An epoch's order depends on seed and epoch alone, and what is left over at its end waits for
    the next. Raises InputError where an image has become unusable since it was looked at.
    """
    order = np.random.RandomState([settings.seed, epoch]).permutation(indices)
    steps, share = len(order) // settings.batch_size, settings.batch_size // processes
    whole = order[: steps * settings.batch_size].reshape(steps, processes, share)
    share_indices = whole[first_step:, process].reshape(-1).tolist()
    dealt = 0
    for batch in images.batches(share, order=share_indices):
        if len(batch.images) < share:
            break
        dealt += 1
        yield batch
    if dealt < steps - first_step:
        raise InputError(
            f"images of '{images.name}' have become unreadable during training: "
            f"{dict(images.skipped)}",
            fix="restore them, and go on with `resume=True`",
        )

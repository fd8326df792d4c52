"""Accuracy and numerics of an artifact against FP32, on the same images, in one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.backends.base import Session
from vitedge.data import ImageSet
from vitedge.errors import InputError
from vitedge.interval import paired_drop_pp
from vitedge.report import Accuracy, Numerics

CONFIDENCE = 0.95
FLUSH_RUNS = 64
"""Runs whose logits are scored together."""
DYNAMIC_BATCH = 8
"""Images per run where the artifact takes any number."""


def validate(
    artifact: Session,
    fp32: Session | None,
    images: ImageSet,
    *,
    calibration: Set[str],
    on_progress: Callable[[int], None] = lambda seen: None,
) -> tuple[Accuracy, Numerics | None]:
    """Run `artifact` and `fp32` over `images` and compare with the labels and with each other.

    `calibration` are the digests of images the artifact was calibrated on: meeting one is an
    InputError, because accuracy on images that shaped the artifact proves nothing. Without
    `fp32` only the artifact's own accuracy is measured.
    """
    size = artifact.inputs[0].shape[0] or DYNAMIC_BATCH
    score = _Score()
    for batch in images.batches(size):
        if not calibration.isdisjoint(batch.digests):
            raise InputError(
                f"'{images.name}' holds images the artifact was calibrated on",
                fix="evaluate on other images, or pass --allow-overlap",
            )
        logits = predict(artifact, batch.images)
        score.add(batch.labels, logits, None if fp32 is None else predict(fp32, batch.images))
        on_progress(score.seen)
    score.flush()
    right = np.concatenate(score.correct)
    top1 = float(right.mean())
    fp32_top1 = drop = agreement = interval = None
    if fp32 is not None:
        fp32_right = np.concatenate(score.fp32_correct)
        fp32_top1 = float(fp32_right.mean())
        drop = 100 * (fp32_top1 - top1)
        agreement = float(np.concatenate(score.agree).mean())
        interval = paired_drop_pp(fp32_right, right, CONFIDENCE)
    accuracy = Accuracy(
        fp32=fp32_top1,
        artifact=top1,
        drop_pp=drop,
        drop_ci_pp=interval,
        confidence=CONFIDENCE,
        agreement=agreement,
        n=score.seen,
        data=images.name,
        skipped=dict(images.skipped),
    )
    return accuracy, score.numerics.result() if fp32 is not None else None


class _Score:
    """What the logits say, worked out for many images at a time: the runtimes have the cores."""

    def __init__(self) -> None:
        self.seen = 0
        self.correct: list[NDArray[np.bool_]] = []
        self.fp32_correct: list[NDArray[np.bool_]] = []
        self.agree: list[NDArray[np.bool_]] = []
        self.numerics = LogitError()
        self._waiting: list[tuple[NDArray[Any], ...]] = []

    def add(
        self,
        labels: NDArray[np.int64],
        logits: NDArray[np.float32],
        fp32: NDArray[np.float32] | None,
    ) -> None:
        """Take the labels (n,) and logits (n, classes) of one run."""
        self.seen += len(labels)
        self._waiting.append((labels, logits) if fp32 is None else (labels, logits, fp32))
        if len(self._waiting) >= FLUSH_RUNS:
            self.flush()

    def flush(self) -> None:
        """Score what is waiting."""
        if not self._waiting:
            return
        labels, logits, *fp32 = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting.clear()
        choice = logits.argmax(axis=-1)
        self.correct.append(choice == labels)
        if fp32:
            fp32_choice = fp32[0].argmax(axis=-1)
            self.fp32_correct.append(fp32_choice == labels)
            self.agree.append(fp32_choice == choice)
            self.numerics.update(fp32[0], logits)


def predict(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (n, classes) of `images` (n, H, W, 3); a short batch is padded to the fixed size."""
    fixed = session.inputs[0].shape[0]
    count = len(images)
    if fixed and count < fixed:
        images = np.concatenate([images, np.repeat(images[-1:], fixed - count, axis=0)])
    outputs = session.run({session.inputs[0].name: images})
    logits: NDArray[np.float32] = outputs[session.outputs[0].name][:count]
    return logits


def predict_all(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (n, classes) of `images` (n, H, W, 3), in runs of the session's own batch size."""
    size = session.inputs[0].shape[0] or DYNAMIC_BATCH
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    return np.concatenate([predict(session, chunk) for chunk in chunks])


class LogitError:
    """Logit error of an artifact against FP32, accumulated over batches in float64."""

    def __init__(self) -> None:
        self._signal = self._noise = self._cosines = self._max = 0.0
        self._images = 0

    def update(self, fp32: NDArray[np.float32], artifact: NDArray[np.float32]) -> None:
        """Add the logits (n, classes) of one batch."""
        want, got = fp32.astype(np.float64), artifact.astype(np.float64)
        difference = want - got
        self._signal += float(np.vdot(want, want))
        self._noise += float(np.vdot(difference, difference))
        self._max = max(self._max, float(np.abs(difference).max()))
        norms = np.sqrt((want * want).sum(-1) * (got * got).sum(-1))
        self._cosines += float(((want * got).sum(-1) / np.maximum(norms, 1e-30)).sum())
        self._images += len(want)

    def result(self) -> Numerics:
        """The error over everything seen."""
        sqnr_db = None
        if self._noise > 0 and self._signal > 0:
            sqnr_db = 10 * math.log10(self._signal / self._noise)
        return Numerics(
            sqnr_db=sqnr_db, max_abs_error=self._max, cosine=self._cosines / self._images
        )

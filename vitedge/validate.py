"""Accuracy and numerics of an artifact against FP32, on the same images, in one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge import metrics
from vitedge.backends.base import Session
from vitedge.errors import InputError
from vitedge.imageset import ImageSet
from vitedge.report import Accuracy, Numerics
from vitedge.spec import Task

CONFIDENCE = 0.95
FLUSH_RUNS = 64
FLUSH_BYTES = 2**22
"""Outputs of so many runs, or of so many bytes, are scored together."""
DYNAMIC_BATCH = 8
"""Images per run where the artifact takes any number."""


def validate(
    artifact: Session,
    fp32: Session | None,
    images: ImageSet,
    task: Task,
    *,
    calibration: Set[str],
    on_progress: Callable[[int], None] = lambda seen: None,
) -> tuple[Accuracy, Numerics | None]:
    """Run `artifact` and `fp32` over `images` and compare with the labels and with each other.

    `calibration` are the digests of images the artifact was calibrated on: meeting one is an
    InputError, because accuracy on images that shaped the artifact proves nothing. Without
    `fp32` only the artifact's own accuracy is measured; where both are one session, it runs once.
    """
    size = artifact.inputs[0].shape[0] or DYNAMIC_BATCH
    scored = _Scored(task)
    for batch in images.batches(size):
        if not calibration.isdisjoint(batch.digests):
            raise InputError(
                f"'{images.name}' holds images the artifact was calibrated on",
                fix="evaluate on other images, or pass --allow-overlap",
            )
        outputs = predict(artifact, batch.images)
        wanted = outputs if fp32 is artifact else None
        if fp32 is not None and wanted is None:
            wanted = predict(fp32, batch.images)
        scored.add(batch.labels, outputs, wanted)
        on_progress(scored.seen)
    scored.flush()
    found = scored.score.result(CONFIDENCE)
    accuracy = Accuracy(
        metric=found.metric,
        fp32=found.value.fp32,
        artifact=found.value.artifact,
        drop_pp=found.value.drop_pp,
        drop_ci_pp=found.drop_ci_pp,
        confidence=CONFIDENCE,
        agreement=found.agreement,
        also=found.also,
        n=scored.seen,
        data=images.name,
        skipped=dict(images.skipped),
    )
    return accuracy, None if fp32 is None else scored.error.result(images.name)


class _Scored:
    """What the outputs say, worked out for many images at a time: the runtimes have the cores."""

    def __init__(self, task: Task) -> None:
        self.seen = 0
        self.score = metrics.score(task)
        self.error = OutputError()
        self._waiting: list[tuple[NDArray[Any], ...]] = []

    def add(
        self, labels: NDArray[Any], artifact: NDArray[np.float32], fp32: NDArray[np.float32] | None
    ) -> None:
        """Take the labels (n, …) and outputs (n, …) of one run."""
        self.seen += len(labels)
        self._waiting.append((labels, artifact) if fp32 is None else (labels, artifact, fp32))
        if len(self._waiting) >= min(FLUSH_RUNS, max(1, FLUSH_BYTES // artifact.nbytes)):
            self.flush()

    def flush(self) -> None:
        """Score what is waiting."""
        if not self._waiting:
            return
        labels, artifact, *fp32 = (np.concatenate(p) for p in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self.score.add(labels, artifact, fp32[0] if fp32 else None)
        if fp32:
            self.error.update(fp32[0], artifact)


def predict(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The output (n, …) for `images` (n, H, W, 3); a short batch is padded to the fixed size."""
    fixed = session.inputs[0].shape[0]
    count = len(images)
    if fixed and count < fixed:
        images = np.concatenate([images, np.repeat(images[-1:], fixed - count, axis=0)])
    outputs = session.run({session.inputs[0].name: images})
    output: NDArray[np.float32] = outputs[session.outputs[0].name][:count]
    return output


def predict_all(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The output (n, …) for `images` (n, H, W, 3), in runs of the session's own batch size."""
    size = session.inputs[0].shape[0] or DYNAMIC_BATCH
    chunks = [images[start : start + size] for start in range(0, len(images), size)]
    return np.concatenate([predict(session, chunk) for chunk in chunks])


class OutputError:
    """Error of an artifact's output against FP32's, accumulated over batches in float64."""

    def __init__(self) -> None:
        self._signal = self._noise = self._cosines = self._max = 0.0
        self._images = 0

    def update(self, fp32: NDArray[np.float32], artifact: NDArray[np.float32]) -> None:
        """Add the outputs (n, …) of one batch."""
        want, got = (x.reshape(len(x), -1).astype(np.float64) for x in (fp32, artifact))
        difference = want - got
        self._signal += float(np.vdot(want, want))
        self._noise += float(np.vdot(difference, difference))
        self._max = max(self._max, float(np.abs(difference).max()))
        norms = np.sqrt((want * want).sum(-1) * (got * got).sum(-1))
        self._cosines += float(((want * got).sum(-1) / np.maximum(norms, 1e-30)).sum())
        self._images += len(want)

    def result(self, data: str) -> Numerics:
        """The error over everything seen, which was `data`."""
        sqnr_db = None
        if self._noise > 0 and self._signal > 0:
            sqnr_db = 10 * math.log10(self._signal / self._noise)
        return Numerics(
            sqnr_db=sqnr_db,
            max_abs_error=self._max,
            cosine=self._cosines / self._images,
            n=self._images,
            data=data,
        )

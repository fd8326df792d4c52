"""Accuracy and numerics of an artifact against FP32, on the same images, in one stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.numerics import cosines, fill_batch, sqnr_db
from vitedge.core.report import Accuracy, Numerics
from vitedge.core.runtime import Session
from vitedge.core.spec import Task
from vitedge.data.imageset import Batch, ImageSet
from vitedge.measure.accuracy import metrics
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.measure.accuracy.variation import Variation
from vitedge.measure.accuracy.worst_images import WorstImages

CONFIDENCE = 0.95
FLUSH_RUNS = 64
FLUSH_BYTES = 2**22
"""Outputs of so many runs, or of so many bytes, are scored together."""
DYNAMIC_BATCH = 8
"""Images per run where the artifact takes any number."""


class Validation(NamedTuple):
    """What a validation found."""

    accuracy: Accuracy
    numerics: Numerics | None
    """None where FP32 was not run."""
    per_image: PerImage


def validate(
    artifact: Session,
    fp32: Session | None,
    images: ImageSet,
    task: Task,
    *,
    calibration: Set[str],
    on_progress: Callable[[int], None] = lambda seen: None,
) -> Validation:
    """Run `artifact` and `fp32` over `images` and compare with the labels and with each other.

    `calibration` are the digests of images the artifact was calibrated on: meeting one is an
    InputError, because accuracy on images that shaped the artifact proves nothing. Without
    `fp32` only the artifact's own accuracy is measured; where both are one session, it runs once.
    """
    size = artifact.inputs[0].shape[0] or DYNAMIC_BATCH
    scorer = _Scorer(task)
    for batch in images.batches(size):
        if not calibration.isdisjoint(batch.digests):
            raise InputError(
                f"'{images.name}' holds images the artifact was calibrated on",
                fix="evaluate on other images, or pass `allow_overlap=True`",
            )
        outputs = predict(artifact, batch.images)
        reference = outputs if fp32 is artifact else None
        if fp32 is not None and reference is None:
            reference = predict(fp32, batch.images)
        scorer.add(batch, outputs, reference)
        on_progress(scorer.seen)
    scorer.flush()
    result = scorer.score.result(CONFIDENCE)
    accuracy = Accuracy(
        **msgspec.structs.asdict(result.value),
        metric=result.metric,
        drop_ci_pp=result.drop_ci_pp,
        confidence=CONFIDENCE,
        agreement=result.agreement,
        also=result.also,
        n=scorer.seen,
        data=images.name,
        skipped=dict(images.skipped),
        lost=result.lost,
        gained=result.gained,
    )
    numerics = None if fp32 is None else scorer.numerics(images.name)
    return Validation(accuracy, numerics, scorer.per_image(result))


class _Scorer:
    """What the outputs say, worked out for many images at a time: the runtimes have the cores."""

    def __init__(self, task: Task) -> None:
        self.seen = 0
        self.score = metrics.score(task)
        self.error = OutputError()
        self._worst = WorstImages(task)
        self._digests: list[int] = []
        self._labels: list[NDArray[Any]] = []
        self._waiting: list[tuple[NDArray[Any], ...]] = []

    def add(
        self, batch: Batch, artifact: NDArray[np.float32], fp32: NDArray[np.float32] | None
    ) -> None:
        """Take one batch and its outputs (n, …)."""
        labels = batch.labels
        self.seen += len(labels)
        self._digests += [int(digest, 16) for digest in batch.digests]
        if labels.ndim == 1:
            self._labels.append(labels)
        if fp32 is not None:
            self._worst.add(batch.images, labels, artifact, fp32)
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

    def numerics(self, data: str) -> Numerics:
        """The artifact's error against FP32, which was run, once everything is scored."""
        return self.error.result(data, len(set(self._digests)))

    def per_image(self, result: metrics.MetricResult) -> PerImage:
        """What each image came to, once everything is scored."""
        worst, thumbnails = self._worst.result()
        labels = np.concatenate(self._labels) if self._labels else np.zeros(0)
        return PerImage(
            digests=np.array(self._digests, np.uint64),
            labels=labels.astype(np.int32),
            artifact=result.artifact,
            fp32=result.fp32,
            worst=worst,
            thumbnails=thumbnails,
        )


def predict(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The output (n, …) for `images` (n, H, W, 3); a short batch is padded to the fixed size."""
    filled = fill_batch(images, session.inputs[0].shape[0] or 1)
    outputs = session.run({session.inputs[0].name: filled})
    output: NDArray[np.float32] = outputs[session.outputs[0].name][: len(images)]
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
        self._variation = Variation()

    def update(self, fp32: NDArray[np.float32], artifact: NDArray[np.float32]) -> None:
        """Add the outputs (n, …) of one batch."""
        want, got = (x.reshape(len(x), -1).astype(np.float64) for x in (fp32, artifact))
        with np.errstate(invalid="ignore"):  # what is not finite makes all of the error so
            difference = want - got
            self._signal += float(np.vdot(want, want))
            self._noise += float(np.vdot(difference, difference))
            self._max = float(np.maximum(self._max, np.abs(difference).max()))
            self._cosines += float(cosines(want, got).sum())
        self._images += len(want)
        self._variation.update(fp32)

    def result(self, data: str, images: int | None = None) -> Numerics:
        """The error over everything seen, which was `data`: so many different images; None: all."""
        finite = math.isfinite(self._noise)
        return Numerics(
            sqnr_db=sqnr_db(self._signal, self._noise),
            max_abs_error=self._max if finite else None,
            cosine=self._cosines / self._images if finite else None,
            n=self._images,
            data=data,
            degenerate=self._variation.degenerate(self._images if images is None else images),
        )

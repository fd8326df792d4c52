"""Accuracy and numerics of an artifact against FP32, on the same images, in one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core.detections import rows
from vitedge.core.errors import SharedError
from vitedge.core.numerics import fill_batch
from vitedge.core.report import Accuracy, Numerics
from vitedge.core.runtime import Session
from vitedge.core.spec import Detection, Task
from vitedge.data.imageset import Batch, ImageSet
from vitedge.measure.accuracy import metrics
from vitedge.measure.accuracy.detection_score import objects_table
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.measure.accuracy.metric import MetricResult
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.measure.accuracy.worst_images import WorstImages

Outputs = list[NDArray[np.float32]]
"""Of one model, the main one first."""
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
    orders: Sequence[str] = (),
    detection: Detection | None = None,
    on_progress: Callable[[int], None] = lambda seen: None,
) -> Validation:
    """Run `artifact` and `fp32` over `images` and compare with the labels and with each other.

    `calibration` are the digests of images the artifact was calibrated on: meeting one is an
    InputError, because accuracy on images that shaped the artifact proves nothing. Outputs whose
    `orders` scores choose, as the manifest says, are compared query by query, matched; `detection`
    says how those of a detector are read. Without
    `fp32` only the artifact's own accuracy is measured; where both are one session, it runs once.
    """
    scorer = _Scorer(task, [spec.name for spec in artifact.outputs], orders, detection)
    for batch, outputs, reference in _runs(artifact, fp32, images, calibration):
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


def compare(
    artifact: Session,
    fp32: Session,
    images: ImageSet,
    task: Task,
    *,
    calibration: Set[str],
    orders: Sequence[str],
    detection: Detection | None = None,
    on_progress: Callable[[int], None],
) -> Numerics:
    """The numerics of `validate`, on images that have no labels."""
    errors = OutputErrors([spec.name for spec in artifact.outputs], task, orders, detection)
    digests: list[str] = []
    for batch, outputs, reference in _runs(artifact, fp32, images, calibration):
        assert reference is not None
        errors.update(reference, errors.matched(reference, outputs))
        digests += batch.digests
        on_progress(len(digests))
    return errors.result(images.name, len(set(digests)))


def _runs(
    artifact: Session, fp32: Session | None, images: ImageSet, calibration: Set[str]
) -> Iterator[tuple[Batch, Outputs, Outputs | None]]:
    """Every batch with the outputs of both; none of FP32's without `fp32`."""
    size = artifact.inputs[0].shape[0] or DYNAMIC_BATCH
    for batch in images.batches(size):
        if not calibration.isdisjoint(batch.digests):
            raise SharedError(
                f"'{images.name}' holds images the artifact was calibrated on",
                fix="evaluate on other images, or pass `allow_overlap=True`",
            )
        outputs = run(artifact, batch.images)
        reference = outputs if fp32 is artifact else None
        if fp32 is not None and reference is None:
            reference = run(fp32, batch.images)
        yield batch, outputs, reference


class _Scorer:
    """What the outputs say, worked out for many images at a time: the runtimes have the cores."""

    def __init__(
        self,
        task: Task,
        outputs: Sequence[str],
        orders: Sequence[str],
        detection: Detection | None,
    ) -> None:
        self.seen = 0
        self.score = metrics.score(task)
        self.error = OutputErrors(outputs, task, orders, detection)
        self._detection = detection
        self._worst = WorstImages(task)
        self._digests: list[int] = []
        self._labels: list[NDArray[Any]] = []
        self._waiting: list[tuple[NDArray[Any], ...]] = []

    def add(self, batch: Batch, artifact: Outputs, fp32: Outputs | None) -> None:
        """Take one batch and its outputs (n, …)."""
        labels = batch.labels
        self.seen += len(labels)
        self._digests += [int(digest, 16) for digest in batch.digests]
        if labels.ndim == 1:
            self._labels.append(labels)
        if fp32 is not None:
            artifact = self.error.matched(fp32, artifact)
        main, reference = artifact[0], fp32[0] if fp32 else None
        if self._detection:
            main = rows(artifact, self._detection)
            reference = rows(fp32, self._detection) if fp32 else None
            self.score.add(labels, main, reference)
        if reference is not None:
            self._worst.add(batch.images, labels, main, reference)
        self._waiting.append((labels, *artifact, *(fp32 or ())))
        size_bytes = max(1, sum(output.nbytes for output in artifact))
        if len(self._waiting) >= min(FLUSH_RUNS, max(1, FLUSH_BYTES // size_bytes)):
            self.flush()

    def flush(self) -> None:
        """Score what is waiting."""
        if not self._waiting:
            return
        labels, *outputs = (np.concatenate(p) for p in zip(*self._waiting, strict=True))
        self._waiting.clear()
        artifact, fp32 = outputs[: self.error.count], outputs[self.error.count :]
        if self._detection is None:
            self.score.add(labels, artifact[0], fp32[0] if fp32 else None)
        if fp32:
            self.error.update(fp32, artifact)

    def numerics(self, data: str) -> Numerics:
        """The artifact's error against FP32, which was run, once everything is scored."""
        return self.error.result(data, len(set(self._digests)))

    def per_image(self, result: MetricResult) -> PerImage:
        """What each image came to, once everything is scored."""
        worst, thumbnails = self._worst.result()
        labels = np.concatenate(self._labels) if self._labels else np.zeros(0)
        frames = np.zeros((0, 4))
        if self._detection:
            frames = np.array([labels[place].placement.frame for place in worst]).reshape(-1, 4)
            labels = objects_table(labels)
        return PerImage(
            digests=np.array(self._digests, np.uint64),
            labels=labels if self._detection else labels.astype(np.int32),
            frames=frames.astype(np.float32),
            artifact=result.artifact,
            fp32=result.fp32,
            worst=worst,
            thumbnails=thumbnails,
        )


def run(session: Session, images: NDArray[np.uint8]) -> Outputs:
    """Every output (n, …) for `images` (n, H, W, 3), the main one first.

    A short batch is padded to the fixed size.
    """
    filled = fill_batch(images, session.inputs[0].shape[0] or 1)
    outputs = session.run({session.inputs[0].name: filled})
    return [outputs[spec.name][: len(images)] for spec in session.outputs]


def run_all(session: Session, images: NDArray[np.uint8]) -> Outputs:
    """Every output (n, …) for `images` (n, H, W, 3), in runs of the session's own batch size."""
    size = session.inputs[0].shape[0] or DYNAMIC_BATCH
    runs = [run(session, images[start : start + size]) for start in range(0, len(images), size)]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def predict_all(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The main output (n, …), as `run_all` gives it."""
    return run_all(session, images)[0]

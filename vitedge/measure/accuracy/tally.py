"""What the outputs of a validation come to, kept so that parts of it join to the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core.detections import rows
from vitedge.core.named_arrays import prefixed, under
from vitedge.core.report import Accuracy, Numerics
from vitedge.core.spec import Detection, Task
from vitedge.data.imageset import Batch
from vitedge.measure.accuracy import metrics
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


class Validation(NamedTuple):
    """What a validation found."""

    accuracy: Accuracy
    numerics: Numerics | None
    """None where FP32 was not run."""
    per_image: PerImage


class Tally:
    """What the outputs say, worked out for many images at a time: the runtimes have the cores.

    Nothing in it depends on how the images are cut into batches, or into parts that are joined.
    """

    def __init__(
        self,
        task: Task,
        outputs: Sequence[str],
        orders: Sequence[str] = (),
        detection: Detection | None = None,
    ) -> None:
        self.seen = 0
        """Images."""
        self.outputs = outputs
        self._score = metrics.score(task)
        self._error = OutputErrors(outputs, task, orders, detection)
        self._detection = detection
        self._worst = WorstImages(task)
        self._fp32 = False
        self._digests: list[NDArray[np.uint64]] = []
        self._labels: list[NDArray[np.int32]] = []
        self._frames: list[NDArray[np.float32]] = []
        self._waiting: list[tuple[NDArray[Any], ...]] = []

    def add(self, batch: Batch, artifact: Outputs, fp32: Outputs | None) -> None:
        """Take one batch and its outputs (n, …)."""
        labels = batch.labels
        self.seen += len(labels)
        self._fp32 = fp32 is not None
        if fp32 is not None:
            artifact = self._error.matched(fp32, artifact)
        main, reference = artifact[0], fp32[0] if fp32 else None
        if self._detection:
            main = rows(artifact, self._detection)
            reference = rows(fp32, self._detection) if fp32 else None
            self._score.add(labels, main, reference)
            frames = [objects.placement.frame for objects in labels]
            self._frames.append(np.array(frames, np.float32))
        if reference is not None:
            self._worst.add(batch.images, labels, main, reference)
        digests = np.array([int(digest, 16) for digest in batch.digests], np.uint64)
        self._waiting.append((digests, labels, *artifact, *(fp32 or ())))
        size_bytes = max(1, sum(output.nbytes for output in artifact))
        if len(self._waiting) >= min(FLUSH_RUNS, max(1, FLUSH_BYTES // size_bytes)):
            self.flush()

    def flush(self) -> None:
        """Score what is waiting."""
        if not self._waiting:
            return
        digests, labels, *outputs = (np.concatenate(p) for p in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._digests.append(digests)
        artifact, fp32 = outputs[: self._error.count], outputs[self._error.count :]
        if self._detection is None:
            self._score.add(labels, artifact[0], fp32[0] if fp32 else None)
            if labels.ndim == 1:
                self._labels.append(labels.astype(np.int32))
        if fp32:
            self._error.update(fp32, artifact)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was seen, to be joined elsewhere: nothing of it where no image was usable."""
        self.flush()
        if not self.seen:
            return {}
        return {
            **prefixed("score", self._score.arrays()),
            **(prefixed("error", self._error.arrays()) if self._fp32 else {}),
            **(prefixed("worst", self._worst.arrays()) if self._fp32 else {}),
            "digests": np.concatenate(self._digests),
            "labels": np.concatenate([np.zeros(0, np.int32), *self._labels]),
            "frames": np.concatenate([np.zeros((0, 4), np.float32), *self._frames]),
        }

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Take the images that come next, as `arrays` gives them."""
        if not stored:
            return
        self._score.join(under("score", stored))
        if errors := under("error", stored):
            self._fp32 = True
            self._error.join(errors)
            self._worst.join(under("worst", stored))
        self.seen += len(stored["digests"])
        self._digests.append(stored["digests"])
        self._labels.append(stored["labels"])
        self._frames.append(stored["frames"])

    def result(self, data: str, skipped: Mapping[str, int]) -> Validation:
        """Everything that was taken, of images called `data`, some of them `skipped`."""
        self.flush()
        result = self._score.result(CONFIDENCE)
        accuracy = Accuracy(
            **msgspec.structs.asdict(result.value),
            metric=result.metric,
            drop_ci_pp=result.drop_ci_pp,
            confidence=CONFIDENCE,
            agreement=result.agreement,
            also=result.also,
            n=self.seen,
            data=data,
            skipped=dict(skipped),
            lost=result.lost,
            gained=result.gained,
        )
        digests = np.concatenate(self._digests)
        numerics = self._error.result(data, len(np.unique(digests))) if self._fp32 else None
        return Validation(accuracy, numerics, self._per_image(digests, result))

    def _per_image(self, digests: NDArray[np.uint64], result: MetricResult) -> PerImage:
        worst, thumbnails = self._worst.result()
        labels = np.concatenate([np.zeros(0, np.int32), *self._labels])
        frames = np.concatenate(self._frames)[worst] if self._detection else np.zeros((0, 4))
        return PerImage(
            digests=digests,
            labels=labels if result.labels is None else result.labels,
            frames=frames.astype(np.float32),
            artifact=result.artifact,
            fp32=result.fp32,
            worst=worst,
            thumbnails=thumbnails,
        )

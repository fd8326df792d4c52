"""Accuracy and numerics of an artifact against FP32, on the same images, in one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import SharedError
from vitedge.core.numerics import fill_batch
from vitedge.core.report import Numerics
from vitedge.core.runtime import Session
from vitedge.core.spec import Detection, Task
from vitedge.data.imageset import Batch, ImageSet
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.measure.accuracy.tally import Outputs, Tally

DYNAMIC_BATCH = 8
"""Images per run where the artifact takes any number."""


def validate(
    artifact: Session,
    fp32: Session | None,
    images: ImageSet,
    task: Task,
    *,
    span: range | None = None,
    calibration: Set[str],
    orders: Sequence[str] = (),
    detection: Detection | None = None,
    on_progress: Callable[[int], None] = lambda seen: None,
) -> Tally:
    """Run `artifact` and `fp32` over `images` and compare with the labels and with each other.

    With a `span`, over these of them alone: `Share.span` cuts a set so that batches stay whole.

    `calibration` are the digests of images the artifact was calibrated on: meeting one is an
    InputError, because accuracy on images that shaped the artifact proves nothing. Outputs whose
    `orders` scores choose, as the manifest says, are compared query by query, matched; `detection`
    says how those of a detector are read. Without
    `fp32` only the artifact's own accuracy is measured; where both are one session, it runs once.
    """
    tally = Tally(task, [spec.name for spec in artifact.outputs], orders, detection)
    for batch, outputs, reference in _runs(artifact, fp32, images, span, calibration):
        tally.add(batch, outputs, reference)
        on_progress(tally.seen)
    tally.flush()
    return tally


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
    for batch, outputs, reference in _runs(artifact, fp32, images, None, calibration):
        assert reference is not None
        errors.update(reference, errors.matched(reference, outputs))
        digests += batch.digests
        on_progress(len(digests))
    return errors.result(images.name, len(set(digests)))


def _runs(
    artifact: Session,
    fp32: Session | None,
    images: ImageSet,
    span: range | None,
    calibration: Set[str],
) -> Iterator[tuple[Batch, Outputs, Outputs | None]]:
    """Every batch with the outputs of both; none of FP32's without `fp32`."""
    for batch in images.aligned(batch_size(artifact), range(len(images)) if span is None else span):
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


def batch_size(session: Session) -> int:
    """Images a run."""
    return session.inputs[0].shape[0] or DYNAMIC_BATCH


def run(session: Session, images: NDArray[np.uint8]) -> Outputs:
    """Every output (n, …) for `images` (n, H, W, 3), the main one first.

    A short batch is padded to the fixed size.
    """
    filled = fill_batch(images, session.inputs[0].shape[0] or 1)
    outputs = session.run({session.inputs[0].name: filled})
    return [outputs[spec.name][: len(images)] for spec in session.outputs]


def run_all(session: Session, images: NDArray[np.uint8]) -> Outputs:
    """Every output (n, …) for `images` (n, H, W, 3), in runs of the session's own batch size."""
    size = batch_size(session)
    runs = [run(session, images[start : start + size]) for start in range(0, len(images), size)]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def predict_all(session: Session, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The main output (n, …), as `run_all` gives it."""
    return run_all(session, images)[0]

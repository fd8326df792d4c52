"""The accuracy lost between two models on the same images, from evidence or from a report."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.report import Accuracy, Metric
from vitedge.gate import decision
from vitedge.measure.accuracy.evidence import Evidence, PerImage
from vitedge.measure.statistics import drop_pp, resampled_drop_pp


class Drop(NamedTuple):
    """Points lost, and what they are known to."""

    points: float
    interval_pp: tuple[float, float]
    """Its limits are one-sided bounds."""
    n: int
    variance: float
    """Of one image's difference, on the 0-1 scale."""

    def images_needed(self, limit_pp: float, confidence: float) -> int | None:
        """How many images would decide about a limit; None: no number would."""
        return decision.images_needed(self.points / 100, self.variance, limit_pp / 100, confidence)


def against_fp32(accuracy: Accuracy, evidence: Evidence | None, confidence: float) -> Drop | None:
    """What was lost against FP32, by the report's counts where they suffice.

    `confidence` is one-sided. None where neither report nor evidence can tell.
    """
    if accuracy.lost is not None and accuracy.gained is not None:
        return of_pairs(accuracy.lost, accuracy.gained, accuracy.n, confidence)
    per_image = evidence.per_image if evidence else None
    if per_image is not None and per_image.fp32 is not None:
        return between(
            accuracy.metric, per_image.labels, per_image.fp32, per_image.artifact, confidence
        )
    interval = accuracy.drop_ci_pp
    if accuracy.drop_pp is None or interval is None or confidence > (1 + accuracy.confidence) / 2:
        return None
    variance = _variance(interval, (1 + accuracy.confidence) / 2, accuracy.n)
    return Drop(accuracy.drop_pp, interval, accuracy.n, variance)


def of_pairs(lost: int, gained: int, n: int, confidence: float) -> Drop:
    """What was lost, by the discordant pairs of n images. Raises InputError without images."""
    interval = drop_pp(lost, gained, n, 2 * confidence - 1)
    drop = (lost - gained) / n
    return Drop(100 * drop, interval, n, (lost + gained) / n - drop**2)


def between(
    metric: Metric,
    labels: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    confidence: float,
) -> Drop:
    """What is lost from the first model to the second; both as `evidence.PerImage` has them."""
    if metric == "top1":
        first_right, second_right = first == labels, second == labels
        lost, gained = (
            int((first_right & ~second_right).sum()),
            int((~first_right & second_right).sum()),
        )
        return of_pairs(lost, gained, len(labels), confidence)
    n = len(first)

    def measure(sums: NDArray[Any]) -> NDArray[Any]:
        if metric == "knn_agreement":
            return np.asarray(sums / n)
        from vitedge.measure.accuracy.metrics import (
            mean_iou,  # brings Pillow, which a report of classes needs not
        )

        return mean_iou(sums)

    points = 100 * float(measure(first.sum(axis=0)) - measure(second.sum(axis=0)))
    interval = resampled_drop_pp(first, second, measure, 2 * confidence - 1) or (-100.0, 100.0)
    return Drop(points, interval, n, _variance(interval, confidence, n))


def _variance(interval_pp: tuple[float, float], confidence: float, n: int) -> float:
    """Of one image's part, 0-1, from an interval of one-sided bounds over n images."""
    error = (interval_pp[1] - interval_pp[0]) / 200 / decision.quantile(confidence)
    return n * error**2


class PairedPredictions(NamedTuple):
    """Two validations, image by image."""

    labels: NDArray[np.int32]
    first: NDArray[Any]
    second: NDArray[Any]


def pair(first: PerImage, second: PerImage, names: tuple[str, str]) -> PairedPredictions:
    """The artifacts' parts of two validations, in the same order.

    Raises InputError where they are not of the same images with the same labels.
    """
    fix = "validate both on the same images"
    orders = [_order(per_image) for per_image in (first, second)]
    digests = [
        per_image.digests[order] for per_image, order in zip((first, second), orders, strict=True)
    ]
    if len(digests[0]) != len(digests[1]) or (digests[0] != digests[1]).any():
        shared = len(np.intersect1d(digests[0], digests[1]))
        raise InputError(
            f"{names[0]} and {names[1]} were validated on other images than each other: "
            f"{len(digests[0]):,} and {len(digests[1]):,}, of which {shared:,} are the same",
            fix=fix,
        )
    labels = [
        per_image.labels[order] if len(per_image.labels) else per_image.labels
        for per_image, order in zip((first, second), orders, strict=True)
    ]
    if len(labels[0]) != len(labels[1]) or (labels[0] != labels[1]).any():
        raise InputError(f"{names[0]} and {names[1]} label the same images differently", fix=fix)
    parts = first.artifact[orders[0]], second.artifact[orders[1]]
    if parts[0].shape != parts[1].shape:
        raise InputError(f"{names[0]} and {names[1]} have not the same classes", fix=fix)
    if parts[0].ndim == 3 and (parts[0][:, 2] != parts[1][:, 2]).any():  # pixels labelled
        raise InputError(f"{names[0]} and {names[1]} label the same images differently", fix=fix)
    return PairedPredictions(labels[0], *parts)


def _order(per_image: PerImage) -> NDArray[np.intp]:
    """Images by digest; the same image twice, by label."""
    if len(per_image.labels):
        return np.lexsort((per_image.labels, per_image.digests))
    return np.argsort(per_image.digests, kind="stable")

"""The accuracy lost between two models on the same images, from evidence or from a report."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.report import LIKENESS, Accuracy, Metric
from vitedge.gate.decision import Criterion, quantile, reach, round_up
from vitedge.gate.verdict import Check
from vitedge.measure.accuracy.evidence import Evidence, PerImage
from vitedge.measure.statistics import discordant, drop_pp, resampled_drop_pp


class Drop(NamedTuple):
    """Points lost, and what they are known to."""

    points: float
    interval_pp: tuple[float, float]
    """Its limits are one-sided bounds."""
    n: int
    variance: float
    """Of one image's difference, on the 0-1 scale: lost + gained - drop² as shares."""

    def images_needed(self, limit_pp: float, confidence: float) -> int | None:
        """Images that decide with 90% power, if discordance stays what it is; None: no number.

        Solves n·|limit - drop| = (z + z_power)·√(n·variance) - ln(1 - confidence), whose last term
        is all there is where no pair is discordant; `confidence` is one-sided.
        """
        gap = abs(limit_pp / 100 - self.points / 100)
        if gap == 0:
            return None
        spread = reach(confidence) * math.sqrt(max(0.0, self.variance))
        rare = -math.log(1 - confidence)
        return round_up(((spread + math.sqrt(spread**2 + 4 * gap * rare)) / (2 * gap)) ** 2)

    def check(self, criterion: Criterion, confidence: float) -> Check:
        """Hold what was lost to a limit, whatever it was lost against."""
        needed = self.images_needed(criterion.limit, confidence)
        return criterion.uncertain(self.points, self.interval_pp, needed, "images")


def against_fp32(accuracy: Accuracy, evidence: Evidence | None, confidence: float) -> Drop | None:
    """What was lost against FP32, by the report's counts where they suffice.

    `confidence` is one-sided. None where neither report nor evidence can tell.
    """
    if accuracy.lost is not None and accuracy.gained is not None:
        return of_pairs(accuracy.lost, accuracy.gained, accuracy.n, confidence)
    per_image = evidence.per_image if evidence else None
    if per_image is not None and per_image.fp32 is not None:
        paired = PairedPredictions(per_image.labels, per_image.fp32, per_image.artifact)
        return between(accuracy.metric, paired, confidence)
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


class PairedPredictions(NamedTuple):
    """Two models, image by image, each as `evidence.PerImage` has it."""

    labels: NDArray[Any]
    first: NDArray[Any]
    second: NDArray[Any]


def between(metric: Metric, paired: PairedPredictions, confidence: float) -> Drop:
    """What is lost from the first model to the second."""
    labels, first, second = paired
    if metric == "top1":
        return of_pairs(*discordant(first == labels, second == labels), len(labels), confidence)
    n = len(first)
    if metric == "map":
        from vitedge.measure.accuracy import average_precision

        models = [average_precision.Evaluation(labels, found) for found in (first, second)]
        points = 100 * (models[0].summary()["map"] - models[1].summary()["map"])
        bounds = average_precision.drop_pp(models[0], models[1], 2 * confidence - 1)
        interval = bounds or (-100.0, 100.0)
        return Drop(points, interval, n, _variance(interval, confidence, n))

    def measure(sums: NDArray[Any]) -> NDArray[Any]:
        if metric in LIKENESS:
            return np.asarray(sums / (-n if metric == "pixel_error" else n))
        from vitedge.measure.accuracy import metrics  # brings Pillow: classes need none

        return metrics.mean_iou(sums)

    points = 100 * float(measure(first.sum(axis=0)) - measure(second.sum(axis=0)))
    interval = resampled_drop_pp(first, second, measure, 2 * confidence - 1) or (-100.0, 100.0)
    return Drop(points, interval, n, _variance(interval, confidence, n))


def _variance(interval_pp: tuple[float, float], confidence: float, n: int) -> float:
    """Of one image's part, 0-1, from an interval of one-sided bounds over n images."""
    error = (interval_pp[1] - interval_pp[0]) / 200 / quantile(confidence)
    return n * error**2


def pair(first: PerImage, second: PerImage, names: tuple[str, str]) -> PairedPredictions:
    """The artifacts' parts of two validations, in the same order.

    Raises InputError where they are not of the same images with the same labels.
    """
    fix = "validate both on the same images"
    a, b = _ordered(first), _ordered(second)
    if not np.array_equal(a.digests, b.digests):
        shared = len(np.intersect1d(a.digests, b.digests))
        raise InputError(
            f"{names[0]} and {names[1]} were validated on other images than each other: "
            f"{len(a.digests):,} and {len(b.digests):,}, of which {shared:,} are the same",
            fix=fix,
        )
    boxes = a.labels.ndim == b.labels.ndim == 3
    if not boxes and a.artifact.shape != b.artifact.shape:
        raise InputError(f"{names[0]} and {names[1]} have not the same classes", fix=fix)
    masks = a.artifact.ndim == 3 and not boxes  # of which the third row counts pixels labelled
    if not np.array_equal(a.labels, b.labels) or (
        masks and (a.artifact[:, 2] != b.artifact[:, 2]).any()
    ):
        raise InputError(f"{names[0]} and {names[1]} label the same images differently", fix=fix)
    return PairedPredictions(a.labels, a.artifact, b.artifact)


def _ordered(per_image: PerImage) -> PerImage:
    """The artifact's part, images by digest; the same image twice, by label."""
    digests, labels, artifact = per_image.digests, per_image.labels, per_image.artifact
    keys = (labels, digests) if labels.ndim == 1 and len(labels) else (digests,)
    order = np.lexsort(keys)
    return PerImage(digests[order], labels[order] if len(labels) else labels, artifact[order])

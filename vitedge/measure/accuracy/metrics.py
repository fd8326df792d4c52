"""What an artifact's outputs are worth: top-1 and top-5, mIoU, the error of its pixels, or its
features' neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError, SharedError
from vitedge.core.numerics import as_maps, by_position
from vitedge.core.report import Compared, Metric
from vitedge.core.spec import Task
from vitedge.data.imageset import UNLABELLED
from vitedge.measure.accuracy import ties
from vitedge.measure.statistics import discordant, drop_pp, resampled_drop_pp

NEIGHBOURS = 10
TOKENS = 2**14
"""Vectors whose neighbours are looked for, of features with several for each image."""
Outputs = NDArray[np.float32]


class MetricResult(NamedTuple):
    """What a score found, on the 0-1 scale; FP32's part is None where FP32 was not run."""

    metric: Metric
    value: Compared
    drop_ci_pp: tuple[float, float] | None
    agreement: float | None
    also: dict[str, Compared]
    fp32: NDArray[Any] | None
    """What each image adds, as `evidence.PerImage` has it."""
    artifact: NDArray[Any]
    lost: int | None = None
    """Images that FP32 alone has right, where the metric counts them and FP32 was run."""
    gained: int | None = None
    """Images that the artifact alone has right, likewise."""


class Score(Protocol):
    """Takes outputs as they come and keeps what the metric needs of them."""

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        """Take the labels and both models' outputs for the same images."""
        ...

    def result(self, confidence: float) -> MetricResult:
        """The metric over everything taken."""
        ...


def score(task: Task) -> Score:
    """The score of a task."""
    scores: dict[Task, Callable[[], Score]] = {
        "classification": TopK,
        "segmentation": MeanIoU,
        "dense": PixelError,
        "features": Neighbours,
    }
    return scores[task]()


def compared(fp32: float | None, artifact: float) -> Compared:
    """A metric of both models, and the points lost."""
    drop = None if fp32 is None else 100 * (fp32 - artifact)
    return Compared(fp32=fp32, artifact=artifact, drop_pp=drop)


class TopK:
    """Top-1 and top-5 of logits (n, classes) against class indices (n,); ties as `ties` has it."""

    def __init__(self) -> None:
        self._batches: list[tuple[NDArray[Any], ...]] = []
        self._agreement: list[NDArray[np.float64]] = []
        self._classes = self._seen = 0

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        self._classes = artifact.shape[1]
        ranked: list[NDArray[Any]] = []
        for logits in (artifact,) if fp32 is None else (artifact, fp32):
            ranks = ties.ranks(logits, labels, self._seen)
            ranked += [ranks, ties.choices(logits, labels, ranks)]
        if fp32 is not None:
            self._agreement.append(ties.agreement(fp32, artifact))
        self._batches.append(tuple(ranked))
        self._seen += len(labels)

    def result(self, confidence: float) -> MetricResult:
        ranks, choices, *of_fp32 = (np.concatenate(p) for p in zip(*self._batches, strict=True))
        fp32, fp32_choices = of_fp32 or (None, None)
        agreement = interval = lost = gained = None
        if fp32 is not None:
            agreement = float(np.concatenate(self._agreement).mean())
            lost, gained = discordant(fp32 < 1, ranks < 1)
            interval = drop_pp(lost, gained, len(ranks), confidence)

        def top(k: int) -> Compared:
            return compared(
                None if fp32 is None else float((fp32 < k).mean()), float((ranks < k).mean())
            )

        return MetricResult(
            metric="top1",
            value=top(1),
            drop_ci_pp=interval,
            agreement=agreement,
            also={"top5": top(5)} if self._classes > 5 else {},
            fp32=fp32_choices,
            artifact=choices,
            lost=lost,
            gained=gained,
        )


def _choice(logits: Outputs) -> NDArray[np.int32]:
    """The class of the largest logit, (n,) or (n, h, w) of (n, classes, …); -1 beside a NaN."""
    return np.where(np.isnan(logits.max(axis=1)), -1, logits.argmax(axis=1)).astype(np.int32)


class MeanIoU:
    """Mean intersection over union, and pixel accuracy, of logits (n, classes, h, w) against masks.

    Logits are resized to the mask bilinearly, half-pixel centres, before the largest is chosen.
    Classes that neither the masks nor the model shows anywhere do not count.
    """

    def __init__(self) -> None:
        self._counts: list[tuple[NDArray[np.int64], ...]] = []  # (3, classes), as `mean_iou` says
        self._agree = self._pixels = 0

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        models = (artifact,) if fp32 is None else (artifact, fp32)
        for index, mask in enumerate(labels):
            known = mask != UNLABELLED
            labelled, classes = mask[known], artifact.shape[1]
            choices = [class_map(model[index], mask.shape)[known] for model in models]
            self._counts.append(tuple(_counts(choice, labelled, classes) for choice in choices))
            self._agree += int((choices[0] == choices[-1]).sum())
            self._pixels += labelled.size

    def result(self, confidence: float) -> MetricResult:
        counts, *of_fp32 = (np.stack(part) for part in zip(*self._counts, strict=True))
        fp32 = of_fp32[0] if of_fp32 else None
        if not counts[:, 2].any():
            raise SharedError(
                "no mask labels a single pixel: there is nothing to measure",
                fix="give masks of class indices, 255 only where a pixel is to be ignored",
            )

        def over(measure: Callable[[NDArray[Any]], NDArray[Any]]) -> Compared:
            return compared(
                None if fp32 is None else float(measure(fp32.sum(axis=0))),
                float(measure(counts.sum(axis=0))),
            )

        agreement = interval = None
        if fp32 is not None:
            agreement = self._agree / self._pixels
            interval = resampled_drop_pp(fp32, counts, mean_iou, confidence)
        return MetricResult(
            metric="miou",
            value=over(mean_iou),
            drop_ci_pp=interval,
            agreement=agreement,
            also={"pixel_accuracy": over(_pixel_accuracy)},
            fp32=None if fp32 is None else fp32.astype(np.int32),
            artifact=counts.astype(np.int32),
        )


def class_map(logits: Outputs, size: tuple[int, int]) -> NDArray[np.int32]:
    """The class of every pixel, (H, W), of logits (classes, h, w) resized to `size`; -1: NaN."""
    height, width = logits.shape[1:]
    if (height, width) != size:
        logits = _bilinear(height, size[0]) @ logits @ _bilinear(width, size[1]).T
    return np.asarray(_choice(logits[None])[0])


def _bilinear(size: int, new_size: int) -> Outputs:
    """(new_size, size): linear interpolation along one axis, half-pixel centres, edges held."""
    at = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    distance = np.abs(at[:, None] - np.arange(size))
    return np.asarray(np.clip(1 - distance, 0, None), np.float32)


def _counts(choice: NDArray[Any], labelled: NDArray[Any], classes: int) -> NDArray[np.int64]:
    parts = (labelled[choice == labelled], choice[choice >= 0], labelled)
    return np.stack([np.bincount(part, minlength=classes) for part in parts])


def mean_iou(counts: NDArray[Any]) -> NDArray[Any]:
    """mIoU of pixel counts (…, 3, classes): in both, predicted, labelled."""
    both, predicted, labelled = (counts[..., part, :].astype(np.float64) for part in range(3))
    union = predicted + labelled - both
    shown = union > 0
    return np.asarray((both / np.maximum(union, 1)).sum(axis=-1) / np.maximum(shown.sum(-1), 1))


def _pixel_accuracy(counts: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(counts[..., 0, :].sum(-1) / np.maximum(counts[..., 2, :].sum(-1), 1))


class PixelError:
    """How far dense maps (n, C, h, w) or (n, h, w) are from FP32's, pixel by pixel.

    A pixel's error is the mean of |artifact - FP32| over its channels, relative to the spread of
    FP32's values: their root mean square distance from the mean of their channel, over all images.
    One that is not finite counts as 1. The metric is the mean over pixels; `pixel_error_p99` the
    error that 1% of an image's pixels exceed, a mean over images.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[float, float, float]] = []  # an image's: sum, pixels lost, p99
        self._sums: NDArray[np.float64] = np.zeros(())  # (3, C): values, squares, count
        self._pixels = 1

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        if fp32 is None:
            raise _no_reference()
        for got, want in zip(as_maps(artifact), as_maps(fp32), strict=True):
            want = want.reshape(len(want), -1).astype(np.float64)
            with np.errstate(invalid="ignore"):
                error = np.abs(got.reshape(want.shape) - want).mean(axis=0)
            error[~np.isfinite(error)] = np.inf
            finite = np.isfinite(error)
            p99 = float(np.quantile(error, 0.99, method="higher"))
            self._errors.append((float(error[finite].sum()), float((~finite).sum()), p99))
            self._pixels = error.size
            count = np.full(len(want), error.size, np.float64)
            self._sums = self._sums + np.stack([want.sum(1), np.square(want).sum(1), count])

    def result(self, confidence: float) -> MetricResult:
        values, squares, count = self._sums
        spread = float(np.sqrt(np.maximum(squares / count - np.square(values / count), 0).mean()))
        spread = max(spread, float(np.sqrt((squares / count).mean())) * 1e-6, 1e-30)
        sums, lost, p99 = np.array(self._errors).T
        error = (sums / spread + lost) / self._pixels
        worst = float(np.where(np.isinf(p99), 1.0, p99 / spread).mean())
        return MetricResult(
            metric="pixel_error",
            value=_error(float(error.mean())),
            drop_ci_pp=resampled_drop_pp(
                np.zeros_like(error), error, lambda sums: -sums / len(error), confidence
            ),
            agreement=None,
            also={"pixel_error_p99": _error(worst)},
            fp32=np.zeros_like(error),
            artifact=error,
        )


def _error(value: float) -> Compared:
    """An error that FP32 has none of by definition."""
    return Compared(fp32=0.0, artifact=value, drop_pp=100 * value)


def _no_reference() -> InputError:
    return InputError(
        "its outputs are compared with FP32's, and the FP32 bundle is not here",
        fix="put the FP32 bundle beside the artifact",
    )


class Neighbours:
    """Whether features (n, …) keep their neighbours: FP32 is right by definition.

    k-NN agreement: the share of a vector's 10 nearest others by cosine, in FP32's features, that
    are among its 10 nearest in the artifact's. The vectors are those of images or, of features
    (n, N, C) and (n, C, h, w), of their tokens: a random few of each image, so that no more than
    TOKENS are kept, or one for each image.
    """

    def __init__(self) -> None:
        self._artifact: list[Outputs] = []
        self._fp32: list[Outputs] = []
        self._images, self._tokens = 0, TOKENS

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        if fp32 is None:
            raise _no_reference()
        for got, want in zip(by_position(artifact), by_position(fp32), strict=True):
            places = np.random.default_rng(self._images).permutation(len(want))[: self._tokens]
            self._artifact.append(_unit(got[places]))
            self._fp32.append(_unit(want[places]))
            self._images += 1
            if self._images * len(places) > TOKENS and len(places) > 1:
                self._tokens = len(places) // 2
                for kept in (self._artifact, self._fp32):
                    kept[:] = [vectors[: self._tokens].copy() for vectors in kept]

    def result(self, confidence: float) -> MetricResult:
        artifact, fp32 = np.concatenate(self._artifact), np.concatenate(self._fp32)
        k = min(NEIGHBOURS, len(fp32) - 1)
        if k < 1:
            raise SharedError("one image has no neighbours", fix="give more images")
        neighbours, fp32_neighbours = _nearest(artifact, k), _nearest(fp32, k)
        matches = neighbours[:, :, None] == fp32_neighbours[:, None, :]  # (vectors, k, k)
        of_vectors = matches.sum(axis=(1, 2)) / k
        of_vectors[np.isnan(artifact).any(axis=1)] = 0  # it has no neighbours
        shared = of_vectors.reshape(self._images, -1).mean(axis=1)
        return MetricResult(
            metric="knn_agreement",
            value=compared(1.0, float(shared.mean())),
            drop_ci_pp=resampled_drop_pp(
                np.ones_like(shared), shared, lambda sums: sums / len(shared), confidence
            ),
            agreement=float((neighbours[:, 0] == fp32_neighbours[:, 0]).mean()),
            also={},
            fp32=np.ones_like(shared),
            artifact=shared,
        )


def _unit(vectors: Outputs) -> Outputs:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12))


def _nearest(features: Outputs, k: int) -> NDArray[np.int64]:
    """Indices (n, k) of the other vectors with the largest cosine, nearest first."""
    blocks = []
    for start in range(0, len(features), 256):
        cosines = features[start : start + 256] @ features.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # not its own neighbour
        blocks.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.concatenate(blocks)

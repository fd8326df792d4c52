"""What an artifact's outputs are worth by labels: top-1 and top-5, or mIoU; and a task's metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import SharedError
from vitedge.core.report import Compared
from vitedge.core.spec import Task
from vitedge.data.imageset import UNLABELLED
from vitedge.measure.accuracy import ties
from vitedge.measure.accuracy.average_precision import library
from vitedge.measure.accuracy.detection_score import MeanAveragePrecision
from vitedge.measure.accuracy.likeness import Neighbours, PixelError
from vitedge.measure.accuracy.metric import MetricResult, Outputs, Score, compared
from vitedge.measure.statistics import discordant, drop_pp, resampled_drop_pp


def check_installed(task: Task) -> None:
    """Raise UnavailableError where what scores a task is not installed, before anything runs."""
    if task == "detection":
        library()


def score(task: Task) -> Score:
    """The score of a task."""
    scores: dict[Task, Callable[[], Score]] = {
        "classification": TopK,
        "segmentation": MeanIoU,
        "detection": MeanAveragePrecision,
        "dense": PixelError,
        "features": Neighbours,
    }
    return scores[task]()


class TopK:
    """Top-1 and top-5 of logits (n, classes) against class indices (n,); ties as `ties` has it."""

    def __init__(self) -> None:
        self._labels: list[NDArray[np.int32]] = []
        self._placed: list[tuple[NDArray[np.int32], ...]] = []  # (3, n) of a model
        self._agreement: list[NDArray[np.float64]] = []
        self._classes = 0

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        self._classes = artifact.shape[1]
        models = (artifact,) if fp32 is None else (artifact, fp32)
        self._placed.append(tuple(ties.placed(logits, labels) for logits in models))
        self._labels.append(labels.astype(np.int32))
        if fp32 is not None:
            self._agreement.append(ties.agreement(fp32, artifact))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "labels": np.concatenate(self._labels),
            "models": np.stack(
                [np.concatenate(m, axis=1) for m in zip(*self._placed, strict=True)]
            ),
            "agreement": np.concatenate([np.zeros(0), *self._agreement]),
            "classes": np.array(self._classes),
        }

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        self._labels.append(stored["labels"])
        self._placed.append(tuple(stored["models"]))
        self._agreement.append(stored["agreement"])
        self._classes = int(stored["classes"])

    def result(self, confidence: float) -> MetricResult:
        labels = np.concatenate(self._labels)
        models = [np.concatenate(model, axis=1) for model in zip(*self._placed, strict=True)]
        ranked = [
            (rank := ties.ranks(model), ties.choices(model, labels, rank)) for model in models
        ]
        (ranks, choices), (fp32, fp32_choices) = ranked[0], (*ranked[1:], (None, None))[0]
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
        self._counts: list[tuple[NDArray[np.int32], ...]] = []  # (3, classes), as `mean_iou` says
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "counts": np.array(self._counts),
            "pixels": np.array([self._agree, self._pixels]),
        }

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        self._counts += map(tuple, stored["counts"])
        agree, pixels = stored["pixels"].tolist()
        self._agree += agree
        self._pixels += pixels

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
                None if fp32 is None else float(measure(fp32.sum(axis=0, dtype=np.int64))),
                float(measure(counts.sum(axis=0, dtype=np.int64))),
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
            fp32=fp32,
            artifact=counts,
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


def _counts(choice: NDArray[Any], labelled: NDArray[Any], classes: int) -> NDArray[np.int32]:
    parts = (labelled[choice == labelled], choice[choice >= 0], labelled)
    return np.stack([np.bincount(part, minlength=classes) for part in parts]).astype(np.int32)


def mean_iou(counts: NDArray[Any]) -> NDArray[Any]:
    """mIoU of pixel counts (…, 3, classes): in both, predicted, labelled."""
    both, predicted, labelled = (counts[..., part, :].astype(np.float64) for part in range(3))
    union = predicted + labelled - both
    shown = union > 0
    return np.asarray((both / np.maximum(union, 1)).sum(axis=-1) / np.maximum(shown.sum(-1), 1))


def _pixel_accuracy(counts: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(counts[..., 0, :].sum(-1) / np.maximum(counts[..., 2, :].sum(-1), 1))

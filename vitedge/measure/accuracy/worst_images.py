"""The images on which an artifact differs most from FP32: what a person wants to see first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.detections import iou
from vitedge.core.numerics import by_position, cosines
from vitedge.core.spec import Task
from vitedge.measure.accuracy import ties

WORST_COUNT = 24
SIDE_PX = 64
SCENE_PX = 160
"""Of what boxes are drawn on."""

Outputs = NDArray[np.float32]


class WorstImages:
    """Takes images as they come and keeps small copies of the worst few."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._side_px = SCENE_PX if task == "detection" else SIDE_PX
        self._heap: list[tuple[float, int, NDArray[np.uint8]]] = []  # the least bad on top
        self._seen = 0

    def add(
        self, images: NDArray[np.uint8], labels: NDArray[Any], artifact: Outputs, fp32: Outputs
    ) -> None:
        """Take the images (n, H, W, 3), labels and outputs (n, …) of one run."""
        for offset, badness in enumerate(_difference(self._task, labels, artifact, fp32)):
            if badness > self._least:
                small = _thumbnail(images[offset], self._side_px)
                self._push(float(badness), self._seen + offset, small)
        self._seen += len(images)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The worst of what was seen, to be joined elsewhere."""
        badness = sorted((entry[0] for entry in self._heap), reverse=True)
        places, thumbnails = self.result()
        worst = {"badness": np.array(badness), "places": places, "thumbnails": thumbnails}
        return {**worst, "seen": np.array(self._seen)}

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add images that come after those seen, as `arrays` gives them."""
        entries = zip(stored["badness"].tolist(), stored["places"].tolist(), strict=True)
        for (badness, place), small in zip(entries, stored["thumbnails"], strict=True):
            if badness > self._least:
                self._push(badness, self._seen + place, small)
        self._seen += int(stored["seen"])

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Positions (k,) among the images seen, worst first, and thumbnails (k, h, w, 3)."""
        ranked = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        places = np.array([-place for _, place, _ in ranked], np.int64)
        empty = np.zeros((0, 0, 0, 3), np.uint8)
        return places, np.stack([small for *_, small in ranked]) if ranked else empty

    @property
    def _least(self) -> float:
        """How bad an image has to be, and more, to be kept."""
        return self._heap[0][0] if len(self._heap) == WORST_COUNT else 0.0

    def _push(self, badness: float, place: int, thumbnail: NDArray[np.uint8]) -> None:
        push = heapq.heappushpop if len(self._heap) == WORST_COUNT else heapq.heappush
        push(self._heap, (badness, -place, thumbnail))


def _difference(
    task: Task, labels: NDArray[Any], artifact: Outputs, fp32: Outputs
) -> NDArray[np.float64]:
    """How much the two differ on each image, (n,); 0 where they agree.

    Classes: how much more probable the artifact finds its choice than FP32's, and 1 more where
    that is another and FP32's was right. Segmentation: share of pixels. Dense maps: mean
    difference. Features: 1 - cosine. Detections (n, k, 6): what part of them, each counting by its
    score, has no like in the other's.
    """
    n = len(artifact)
    if task == "detection":
        return np.array([_changed(*pair) for pair in zip(fp32, artifact, strict=True)])
    if task == "segmentation":
        return np.asarray((artifact.argmax(1) != fp32.argmax(1)).reshape(n, -1).mean(1))
    if task == "dense":
        return np.asarray(np.abs(artifact - fp32).reshape(n, -1).mean(axis=1, dtype=np.float64))
    if task == "features":
        a, b = (by_position(x).astype(np.float64) for x in (artifact, fp32))
        return np.asarray(1 - cosines(a, b).mean(axis=1))
    difference = np.zeros(n)
    choice, fp32_choice = artifact.argmax(1), fp32.argmax(1)
    for row in np.flatnonzero(ties.agreement(fp32, artifact) < 1):
        logits = artifact[row].astype(np.float64)
        shares = np.exp(logits - logits.max())
        margin = (shares[choice[row]] - shares[fp32_choice[row]]) / shares.sum()
        lost = choice[row] != fp32_choice[row] == labels[row]
        difference[row] = 1e-9 + margin + lost
    return difference


def _changed(fp32: Outputs, artifact: Outputs) -> float:
    """The part of the detections (k, 6) of one image that has no like in the other's.

    Two are alike by their IoU, times the smaller of their scores over the larger.
    """
    first, second = (rows[rows[:, 0] >= 0].astype(np.float64) for rows in (fp32, artifact))
    if not len(first) or not len(second):
        return float(len(first) != len(second))
    pairs = iou(first[:, None, 2:], second[None, :, 2:])
    scores = np.maximum(first[:, None, 0], 1e-9), np.maximum(second[None, :, 0], 1e-9)
    alike = np.where(first[:, None, 1] == second[None, :, 1], pairs, 0)
    alike = alike * np.minimum(*scores) / np.maximum(*scores)
    kept = first[:, 0] @ alike.max(axis=1) + second[:, 0] @ alike.max(axis=0)
    return float(1 - kept / max(first[:, 0].sum() + second[:, 0].sum(), 1e-9))


def _thumbnail(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """At most `side_px` a side: means of squares of pixels."""
    step = -(-max(image.shape[:2]) // side_px)
    height, width = (size // step for size in image.shape[:2])
    squares = image[: height * step, : width * step].reshape(height, step, width, step, 3)
    return np.asarray(squares.mean(axis=(1, 3)), np.uint8)

"""COCO's average precision of detections, by faster-coco-eval, and how sure a drop of it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import SharedError, missing
from vitedge.measure.statistics import pseudo_values_drop_pp

GROUPS = 50
"""Parts of a set left out one at a time, for an interval; its images where these are fewer."""
FEW = 10
"""Images below which there is no interval."""
SUMMARY = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
"""What COCO's summary begins with: over IoU from 0.50 to 0.95, at two of them, and by size."""

Table = NDArray[np.float32]
"""In pixels of each photograph. Detections (n, k, 6): score, class, left, top, right, bottom; where
an image has fewer, -1. Objects (n, g, 7): class, left, top, right, bottom, area, crowd; likewise.
"""


class Evaluation:
    """One model's detections, matched with the objects image by image."""

    def __init__(self, objects: Table, detections: Table) -> None:
        """Raises SharedError where there is no object, UnavailableError without the library."""
        if not ((objects[..., 0] >= 0) & (objects[..., 6] == 0)).any():
            raise SharedError(
                "no image has an object that is no crowd: there is nothing to measure",
                fix="give images whose annotations have boxes; check-data names those it skips",
            )
        self.detections = detections
        self._matched = _match(objects, detections)
        self._image_ids = self._matched.params.imgIds

    def summary(self) -> dict[str, float]:
        """mAP and its kin by name, 0-1; a size that no object has is left out."""
        self._matched.accumulate()
        self._matched.summarize()
        values = dict(zip(SUMMARY, map(float, self._matched.stats), strict=False))
        return {name: value for name, value in values.items() if value >= 0}

    def over(self, images: Sequence[int]) -> float:
        """mAP over some of the images alone, by their places; 0 where these have no object."""
        part = copy.copy(self._matched)
        params = copy.copy(part._paramsEval)
        of_class = len(params.areaRng) * len(self._image_ids)  # objects of all sizes come first
        starts = range(0, len(part._evalImgs_cpp), of_class)
        part._evalImgs_cpp = [part._evalImgs_cpp[start + i] for start in starts for i in images]
        params.imgIds = [self._image_ids[i] for i in images]
        params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]
        part._paramsEval = params
        part.accumulate()
        precision = part.eval["precision"]
        known = precision[precision > -1]
        return float(known.mean()) if known.size else 0.0


def drop_pp(first: Evaluation, second: Evaluation, confidence: float) -> tuple[float, float] | None:
    """Bound what mAP loses from the first to the second, percentage points; None of few images.

    Groups of images are left out of both alike, one group at a time, and the pseudo-values of that
    resampled: what was matched stays so.
    """
    n = len(first.detections)
    if n < FEW:
        return None
    order = np.random.RandomState(0).permutation(n)

    def drop(images: Sequence[int]) -> float:
        return first.over(images) - second.over(images)

    left_out = np.array_split(order, min(n, GROUPS))
    without = [drop(np.setdiff1d(order, group).tolist()) for group in left_out]
    a, b = padded([*first.detections, *second.detections]).reshape(2, n, -1)
    differ = int((a != b).any(axis=1).sum())
    return pseudo_values_drop_pp(drop(range(n)), np.array(without), differ, n, confidence)


def padded(tables: Sequence[Table]) -> Table:
    """Tables (k, c) of images as (n, most k, c), with -1 where one has fewer rows."""
    most = max(map(len, tables))
    whole = np.full((len(tables), most, tables[0].shape[1]), -1, np.float32)
    for place, table in zip(whole, tables, strict=True):
        place[: len(table)] = table
    return whole


def library() -> tuple[Any, Any]:
    """What stands for a set of annotations, and what evaluates one against another.

    Raises UnavailableError where faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise missing("faster-coco-eval", "detection") from error
    return COCO, COCOeval_faster


def _match(objects: Table, detections: Table) -> Any:
    """The library's evaluation, with its matches made, of the classes that objects are of."""
    coco, evaluation = library()
    classes = np.unique(objects[..., 0][objects[..., 0] >= 0])
    truth = [
        {"area": float(row[5]), "iscrowd": int(row[6]), **annotation}
        for row, annotation in _annotations(objects, objects[..., 0], objects[..., 1:5], classes)
    ]
    answers = [
        {"score": float(row[0]), "area": _area(annotation), "iscrowd": 0, **annotation}
        for row, annotation in _annotations(
            detections, detections[..., 1], detections[..., 2:6], classes
        )
    ]
    sides = []
    for listed in (truth, answers):
        side = coco(print_function=_silent)
        side.dataset = {
            "images": [{"id": place} for place in range(1, len(objects) + 1)],
            "categories": [{"id": int(index), "name": str(int(index))} for index in classes],
            "annotations": listed,
        }
        side.createIndex()
        sides.append(side)
    matched = evaluation(*sides, "bbox", print_function=_silent, separate_eval=True)
    matched.evaluate()
    return matched


def _annotations(
    table: Table, of_class: Table, corners: Table, classes: NDArray[Any]
) -> list[tuple[Table, dict[str, Any]]]:
    """The rows of a table that are of these classes, and what COCO's format says of both kinds."""
    kept = np.argwhere(np.isin(of_class, classes))
    exact = corners.astype(np.float64)
    listed = []
    for number, (image, place) in enumerate(kept.tolist(), start=1):
        left, top, right, bottom = exact[image, place].tolist()
        annotation = {
            "id": number,
            "image_id": image + 1,
            "category_id": int(of_class[image, place]),
            "bbox": [left, top, right - left, bottom - top],
        }
        listed.append((table[image, place], annotation))
    return listed


def _area(annotation: dict[str, Any]) -> float:
    *_, width, height = annotation["bbox"]
    return float(width * height)


def _silent(*_: object) -> None:
    """What the library would print."""

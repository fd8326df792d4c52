"""What detections are worth: the score of the task, fed as outputs come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.data.imageset import Objects
from vitedge.measure.accuracy.average_precision import Evaluation, Table, drop_pp, padded
from vitedge.measure.accuracy.metric import MetricResult, Outputs, compared


class MeanAveragePrecision:
    """mAP of detections (n, k, 6), as `core.detections.rows` gives them; labels are `Objects`."""

    def __init__(self) -> None:
        self._objects: list[Objects] = []
        self._tables: list[tuple[Table, ...]] = []

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        models = (artifact,) if fp32 is None else (artifact, fp32)
        for objects, *tables in zip(labels, *models, strict=True):
            self._objects.append(objects)
            self._tables.append(tuple(in_pixels(table, objects) for table in tables))

    def result(self, confidence: float) -> MetricResult:
        objects = objects_table(self._objects)
        artifact, *of_fp32 = (padded(tables) for tables in zip(*self._tables, strict=True))
        second = Evaluation(objects, artifact)
        values, fp32, interval = second.summary(), None, None
        if of_fp32:
            first = Evaluation(objects, of_fp32[0])
            fp32 = first.summary()
            interval = drop_pp(first, second, confidence)
        by_name = {
            name: compared(fp32[name] if fp32 else None, value) for name, value in values.items()
        }
        return MetricResult(
            metric="map",
            value=by_name.pop("map"),
            drop_ci_pp=interval,
            agreement=None,
            also=by_name,
            fp32=of_fp32[0] if of_fp32 else None,
            artifact=artifact,
        )


def in_pixels(detections: Table, objects: Objects) -> Table:
    """One image's detections (k, 6), their boxes in pixels of its photograph."""
    boxes = objects.placement.in_pixels(detections[:, 2:])
    table = np.concatenate([detections[:, :2], boxes], axis=1)
    return np.where(detections[:, :1] < 0, np.float32(-1), table).astype(np.float32)


def objects_table(objects: Iterable[Objects]) -> Table:
    """What is on images, (n, g, 7), as `average_precision.Table` has it."""
    rows = (
        (x.classes[:, None], x.boxes, x.areas[:, None], x.crowds[:, None].astype(np.float32))
        for x in objects
    )
    return padded([np.concatenate(parts, axis=1).astype(np.float32) for parts in rows])

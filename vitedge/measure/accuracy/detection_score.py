"""What detections are worth: the score of the task, fed as outputs come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.data.imageset import Objects
from vitedge.measure.accuracy.average_precision import Evaluation, Table, drop_pp, padded
from vitedge.measure.accuracy.metric import MetricResult, Outputs, compared


class MeanAveragePrecision:
    """mAP of detections (n, k, 6), as `core.detections.rows` gives them; labels are `Objects`."""

    def __init__(self) -> None:
        self._objects: list[Table] = []
        self._tables: list[tuple[Table, ...]] = []

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        models = (artifact,) if fp32 is None else (artifact, fp32)
        for objects, *tables in zip(labels, *models, strict=True):
            self._objects.append(objects_table(objects))
            self._tables.append(tuple(in_pixels(table, objects) for table in tables))

    def arrays(self) -> dict[str, NDArray[Any]]:
        models = [padded(tables) for tables in zip(*self._tables, strict=True)]
        return {"objects": padded(self._objects)} | {
            f"model{place}": tables for place, tables in enumerate(models)
        }

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        self._objects += list(stored["objects"])
        models = (stored[name] for name in ("model0", "model1") if name in stored)
        self._tables += zip(*models, strict=True)

    def result(self, confidence: float) -> MetricResult:
        objects = padded(self._objects)
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
            labels=objects,
        )


def in_pixels(detections: Table, objects: Objects) -> Table:
    """One image's detections (k, 6), their boxes in pixels of its photograph."""
    boxes = objects.placement.in_pixels(detections[:, 2:])
    table = np.concatenate([detections[:, :2], boxes], axis=1)
    return np.where(detections[:, :1] < 0, np.float32(-1), table).astype(np.float32)


def objects_table(objects: Objects) -> Table:
    """What is on an image, (g, 7), as `average_precision.Table` has it."""
    of_each = (objects.classes, *objects.boxes.T, objects.areas, objects.crowds)
    return np.stack(of_each, axis=1).astype(np.float32)

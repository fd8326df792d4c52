"""How far an artifact's detections are from FP32's, query by query: what SQNR of boxes hides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.detections import BoxLikeness, box_likeness, detections
from vitedge.core.report import DetectionError
from vitedge.core.spec import Detection

MOST = 100
"""Detections of an image that are compared, the best first; fewer of a model with fewer queries."""


class DetectionErrors:
    """Accumulated over batches of logits and boxes whose queries are in one order."""

    def __init__(self, rule: Detection) -> None:
        self._rule = rule
        self._images: list[tuple[float, float, float]] = []
        """Of each: `BoxLikeness`, and what share of its best detections is kept."""
        self._most = 0

    def update(
        self, fp32: Sequence[NDArray[np.float32]], artifact: Sequence[NDArray[np.float32]]
    ) -> None:
        """Add the outputs, logits (n, queries, classes) and then boxes (n, queries, 4)."""
        for place in range(len(fp32[0])):
            want, got = (
                detections(outputs[0][place], outputs[1][place], self._rule)
                for outputs in (fp32, artifact)
            )
            most = min(MOST, len(want.scores))
            best = [
                set(zip(found.queries[:most].tolist(), found.classes[:most].tolist(), strict=True))
                for found in (want, got)
            ]
            image = slice(place, place + 1)
            likeness = box_likeness(
                [x[image] for x in fp32[:2]], [x[image] for x in artifact[:2]], self._rule
            )
            self._images.append((*likeness, len(best[0] & best[1]) / max(most, 1)))
            self._most = max(self._most, most)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was seen, to be joined elsewhere."""
        return {"images": np.array(self._images).reshape(-1, 3), "most": np.array(self._most)}

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add what was seen elsewhere, as `arrays` gives it."""
        self._images += map(tuple, stored["images"].tolist())
        self._most = max(self._most, int(stored["most"]))

    def result(self) -> DetectionError:
        """Over everything seen."""
        shared, weight, kept = (math.fsum(part) for part in zip(*self._images, strict=True))
        return DetectionError(
            box_iou=BoxLikeness(shared, weight).iou,
            top_overlap=kept / len(self._images),
            top=self._most,
        )

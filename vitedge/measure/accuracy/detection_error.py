"""How far an artifact's detections are from FP32's, query by query: what SQNR of boxes hides."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._likeness: list[BoxLikeness] = []
        self._overlap = 0.0
        self._images = self._most = 0

    def update(
        self, fp32: Sequence[NDArray[np.float32]], artifact: Sequence[NDArray[np.float32]]
    ) -> None:
        """Add the outputs, logits (n, queries, classes) and then boxes (n, queries, 4)."""
        self._likeness.append(box_likeness(fp32, artifact, self._rule))
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
            self._overlap += len(best[0] & best[1]) / max(most, 1)
            self._most = max(self._most, most)
            self._images += 1

    def result(self) -> DetectionError:
        """Over everything seen."""
        return DetectionError(
            box_iou=BoxLikeness(*map(sum, zip(*self._likeness, strict=True))).iou,
            top_overlap=self._overlap / max(self._images, 1),
            top=self._most,
        )

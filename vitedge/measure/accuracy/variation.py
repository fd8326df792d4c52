"""Whether an output can prove anything: what hardly varies, a broken artifact gets right, too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.numerics import EXPORT_PARITY

Outputs = NDArray[np.float32]

LEAST = EXPORT_PARITY
"""Least variation, relative to the largest value: parity allows FP32 that error, so that below it
an artifact which says the same of every image would pass."""


class Variation:
    """How far FP32's output varies, over images and within one; accumulated over batches."""

    def __init__(self) -> None:
        self._ends: tuple[Outputs, Outputs] | None = None  # of each element: least and most, (…)
        self._within: float | None = None  # half the range of classes in one image, the widest

    def update(self, outputs: Outputs) -> None:
        """Add the outputs (n, …) of one batch."""
        least, most = outputs.min(axis=0), outputs.max(axis=0)
        if self._ends:
            least, most = np.minimum(self._ends[0], least), np.maximum(self._ends[1], most)
        self._ends = least, most
        axis = 2 if outputs.ndim == 3 else 1  # classes or features of NC, NLC, NCHW
        if outputs.ndim > 1 and outputs.shape[axis] > 1:
            within = float((outputs.max(axis) - outputs.min(axis)).max()) / 2
            self._within = max(self._within or 0.0, within)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was seen, to be joined elsewhere."""
        within = () if self._within is None else (self._within,)
        return {"ends": np.array(self._ends or (), np.float32), "within": np.array(within)}

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add what was seen elsewhere, as `arrays` gives it."""
        if not len(stored["ends"]):
            return
        least, most = stored["ends"]
        if self._ends:
            least, most = np.minimum(self._ends[0], least), np.maximum(self._ends[1], most)
        self._ends = least, most
        for within in stored["within"].tolist():
            self._within = max(self._within or 0.0, within)

    def degenerate(self, images: int) -> str:
        """Why what was seen of so many different `images` proves nothing; empty where it may.

        Of one image it is not known what others would give.
        """
        assert self._ends is not None
        least, most = self._ends
        largest = float(max(np.abs(least).max(), np.abs(most).max()))
        over_images = float((most - least).max()) / 2
        if not math.isfinite(largest):
            return ""
        if not largest:
            return "FP32's output is zero"
        if self._within is not None and self._within <= LEAST * largest:
            return f"FP32 gives every class the same value{_but(self._within, largest)}"
        if images > 1 and over_images <= LEAST * largest:
            return f"FP32 gives the same output for all images{_but(over_images, largest)}"
        return ""


def _but(variation: float, largest: float) -> str:
    return f" but for {variation / largest:.0e} of it" if variation else ""

"""Detections on an image's thumbnail: FP32's, and what the artifact makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitedge.measure.accuracy.evidence import PerImage

SURE = 0.5
"""Of the surest score of FP32 on an image: what is less is not drawn."""
MOST = 10
"""Of an image, and of a model."""
NAMED = 3
"""Of these, in the caption."""


def overlay(per_image: PerImage, number: int, labels: Sequence[str]) -> dict[str, Any]:
    """The frames of the image that is `number` of the worst, 0-1 of its sides, and a caption.

    Nothing of what is no detector, and of an artifact that was not compared with FP32.
    """
    if not len(per_image.frames) or per_image.fp32 is None:
        return {}
    place, frame = int(per_image.worst[number]), per_image.frames[number].astype(np.float64)
    models = {"FP32": per_image.fp32[place], "artifact": per_image.artifact[place]}
    least = SURE * float(per_image.fp32[place][:, 0].max(initial=0))
    shown = {
        name: rows[(rows[:, 0] >= 0) & (rows[:, 0] >= least)][:MOST]
        for name, rows in models.items()
    }
    said = "; ".join(f"{name}: {_listed(rows, labels)}" for name, rows in shown.items())
    frames = [
        {"css": css, **rectangle}
        for css, rows in zip(("fp32", "own"), shown.values(), strict=True)
        for rectangle in _rectangles(rows, frame)
    ]
    return {"said": f": {said}", "frames": frames}


def _listed(rows: NDArray[np.float32], labels: Sequence[str]) -> str:
    """`star 83%, ring 40% and 2 more`."""
    pairs = zip(rows[:, 0].tolist(), rows[:, 1].astype(int).tolist(), strict=True)
    names = [
        f"{labels[index] if index < len(labels) else f'class {index}'} {score:.0%}"
        for score, index in pairs
    ]
    more = len(names) - NAMED
    return (", ".join(names[:NAMED]) or "nothing") + (f" and {more} more" if more > 0 else "")


def _rectangles(
    rows: NDArray[np.float32], frame: NDArray[np.float64]
) -> Iterator[dict[str, float]]:
    """Where boxes in pixels of the photograph are in the input, whose sides are 1."""
    corners = np.clip(rows[:, 2:] * np.tile(frame[:2], 2) + np.tile(frame[2:], 2), 0, 1)
    for left, top, right, bottom in corners.round(4).tolist():
        yield {"x": left, "y": top, "width": max(right - left, 0), "height": max(bottom - top, 0)}

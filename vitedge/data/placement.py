"""Where a photograph lies in a model's input, so that boxes find their way back to its pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitedge.core.spec import Preprocess
from vitedge.data.geometry import margins, mirrored, resized_sizes

Pair = tuple[float, float]
"""Along x and y."""


class Placement(NamedTuple):
    """Pixel x of a photograph is `scale · x + offset` of the input, whose sides are 1.

    It counts from the left or upper edge, not from the first pixel's centre.
    """

    scale: tuple[float, float]
    """Along x and y."""
    offset: tuple[float, float]
    size: tuple[int, int]
    """Width and height of the photograph, pixels."""

    @property
    def frame(self) -> tuple[float, float, float, float]:
        """Both scales, and both offsets."""
        return *self.scale, *self.offset

    def in_pixels(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Corners (…, 4) relative to the input's sides, as pixels of the photograph."""
        return np.asarray((boxes - self.offset * 2) / np.array(self.scale * 2), np.float32)


def placement(size: tuple[int, int], preprocess: Preprocess) -> Placement:
    """Where `geometry.fit` puts a photograph of that width and height."""
    new = (preprocess.width, preprocess.height)
    if preprocess.resize == "box":
        return _in_box(size, new)
    before, framed = _framed(size, preprocess)
    resized = resized_sizes(*framed, preprocess)[-1]
    after = margins(resized, preprocess)
    scale = (resized[0] / framed[0], resized[1] / framed[1])
    offset = (after[0] + before[0] * scale[0], after[1] + before[1] * scale[1])
    return _of_input(scale, offset, size, new)


def _framed(
    size: tuple[int, int], preprocess: Preprocess
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Left and top of the photograph in what is resized, and the width and height of that."""
    width, height = size
    if preprocess.crop_share:
        side = int(preprocess.crop_share * min(size))
        return (-((width - side) // 2), -((height - side) // 2)), (side, side)
    if preprocess.pad == "square":
        return (0, 0), (max(size), max(size))
    if preprocess.pad == "mirror":
        x, y = mirrored(width), mirrored(height)
        return (x, y), (width + 2 * x, height + 2 * y)
    return (0, 0), size


def _in_box(size: tuple[int, int], new: tuple[int, int]) -> Placement:
    """As ViTPose samples: corner pixels of the input on those of 1.25 times the photograph."""
    larger = 1.25 * max(size[0] / new[0], size[1] / new[1])
    steps = [larger * side / (side - 1) for side in new]
    starts = [(old - larger * side) / 2 for old, side in zip(size, new, strict=True)]
    x, y = (0.5 - (0.5 + at) / step for at, step in zip(starts, steps, strict=True))
    return _of_input((1 / steps[0], 1 / steps[1]), (x, y), size, new)


def _of_input(scale: Pair, offset: Pair, size: tuple[int, int], new: tuple[int, int]) -> Placement:
    """Of a scale and an offset in pixels of the input."""
    (width, height), (x, y), (left, top) = new, scale, offset
    return Placement((x / width, y / height), (left / width, top / height), size)

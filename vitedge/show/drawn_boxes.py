"""A photograph with the objects on it drawn: a frame in the colour of its class, name and score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from vitedge.measure.open_bundle import DetectedObject

HUE_STEP = 0.618
"""Between the colours of classes that follow each other, in turns: no two of a few are alike."""
LEGIBLE_PX = 480
"""The longer side of a drawing at least: names would hide what is on a smaller one."""


def drawn(photograph: Image.Image, objects: Sequence[DetectedObject]) -> Image.Image:
    """A copy of `photograph`, RGB, with `objects` on it, the surest one on top.

    Smaller ones than `LEGIBLE_PX` become a whole number of times larger, boxes with them.
    """
    from PIL import Image, ImageDraw, ImageFont

    times = max(1, math.ceil(LEGIBLE_PX / max(photograph.size)))
    size = (photograph.width * times, photograph.height * times)
    picture = photograph.resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    side, limits = max(picture.size), (picture.width - 1, picture.height - 1)
    width, font = max(1, round(side / 320)), ImageFont.load_default(max(10.0, side / 40))
    for found in reversed(objects):
        colour = _colour(found.index)
        left, top, right, bottom = (
            min(max(edge * times, 0), limit)
            for edge, limit in zip(found.box, limits * 2, strict=True)
        )
        corners = (left, top, max(left, right), max(top, bottom))
        pen.rectangle(corners, outline=colour, width=width)
        text = f"{found.label} {found.score:.0%}"
        _, _, text_width, text_height = font.getbbox(text)
        x = min(left, max(picture.width - text_width, 0))
        y = max(top - text_height, 0)
        pen.rectangle((x, y, x + text_width + 1, y + text_height + 1), fill=colour)
        pen.text((x, y), text, fill="black", font=font)
    return picture


def _colour(index: int) -> tuple[int, int, int]:
    """Of a class."""
    import colorsys

    red, green, blue = colorsys.hls_to_rgb(index * HUE_STEP % 1, 0.6, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)

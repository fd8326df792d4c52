"""The embedded set of masks and boxes: textured shapes that overlap, drawn by arithmetic alone.

No rasteriser draws and no library's filter blurs: the pixels are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 64
TRAINING = range(3000)
"""Indices of the images to train and calibrate on."""
HELD_OUT = range(3000, 3400)
"""Indices of the images to evaluate on."""

LEAST_SEEN_PX = 40
"""Pixels of a shape below which it is no object: its class cannot be told."""

Map = NDArray[np.float64]
"""One number a pixel, (64, 64), or one a channel of it, (64, 64, 3)."""


class Seen(NamedTuple):
    """The objects of an image."""

    boxes: NDArray[np.float32]
    """(g, 4) left, top, right, bottom, pixels."""
    classes: NDArray[np.int64]
    """(g,) indices into OBJECT_CLASSES."""
    areas: NDArray[np.float32]
    """(g,) pixels that are seen."""


def draw(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image `index`: (64, 64, 3) RGB, and its mask (64, 64) of indices into CLASSES.

    Two to four shapes, each over those before it, in any place, size, turn and texture. The
    colours of classes overlap, and the background has them all: outlines must be seen too.
    """
    image, mask, _ = _scene(index)
    return image, mask


def draw_objects(index: int) -> tuple[NDArray[np.uint8], Seen]:
    """Image `index`, and the shapes that are seen on it, in the order they were drawn.

    A box is around the pixels of a shape that no later one covers; one of fewer than
    `LEAST_SEEN_PX` of these is no object.
    """
    image, mask, owners = _scene(index)
    boxes, classes, areas = [], [], []
    for shape in range(1, int(owners.max()) + 1):
        rows, columns = np.nonzero(owners == shape)
        if len(rows) >= LEAST_SEEN_PX:
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            classes.append(int(mask[rows[0], columns[0]]) - 1)
            areas.append(len(rows))
    return image, Seen(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int64),
        np.array(areas, np.float32),
    )


def _scene(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The image, its mask of classes, and which shape, from 1, each pixel is of."""
    random = np.random.RandomState(index)  # NumPy keeps its streams frozen
    image = _texture(random, random.uniform(40, 215, 3))
    mask, owners = np.zeros((2, SIDE_PX, SIDE_PX), np.uint8)
    for shape in range(1, random.randint(2, 5) + 1):
        kind = random.randint(len(_FORMS))
        signed_distance, colour = _FORMS[CLASSES[1 + kind]]
        radius = random.uniform(11, 20)
        x, y = _turned(random)
        distance = radius * signed_distance(x / radius, y / radius)
        cover = np.clip(0.5 - distance, 0, 1)[:, :, None]  # edges are a pixel wide
        texture = _texture(random, colour + random.uniform(-35, 35, 3))
        image = image * (1 - cover) + texture * cover
        mask[distance < 0] = 1 + kind
        owners[distance < 0] = shape
    noise = random.uniform(-1, 1, image.shape) + random.uniform(-1, 1, image.shape)
    noisy = image + random.uniform(2, 12) * noise
    return np.clip(np.floor(noisy + 0.5), 0, 255).astype(np.uint8), mask, owners


def _texture(random: np.random.RandomState, colour: Map) -> Map:
    """`colour` (3,), changed from place to place, coarsely and finely."""
    coarse, fine = random.randint(1, 5), random.randint(8, 25)
    return colour + 30 * _cloud(random, coarse) + random.uniform(0, 25) * _cloud(random, fine)


def _cloud(random: np.random.RandomState, cells: int) -> Map:
    """-1..1: random at the corners of cells × cells squares, bilinear between them."""
    corners = random.uniform(-1, 1, (cells + 1, cells + 1, 3))
    at = np.arange(SIDE_PX) * cells / SIDE_PX
    before = at.astype(np.int64)
    part = (at - before)[:, None]
    rows = corners[before] * (1 - part[:, None]) + corners[before + 1] * part[:, None]
    return np.asarray(rows[:, before] * (1 - part) + rows[:, before + 1] * part)


def _turned(random: np.random.RandomState) -> tuple[Map, Map]:
    """Coordinates of every pixel's centre about a random place and turn, pixels."""
    x0, y0, turn = random.uniform(6, 58), random.uniform(6, 58), random.uniform(0, 2 * np.pi)
    centres = np.arange(SIDE_PX) + 0.5
    x, y = centres[None, :] - x0, centres[:, None] - y0
    return x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)


def _sides(x: Map, y: Map, count: int) -> Map:
    """Distance from the centre towards each side of a regular polygon, (count, 64, 64)."""
    turns = [2 * np.pi * side / count for side in range(count)]
    return np.stack([x * np.cos(turn) + y * np.sin(turn) for turn in turns])


_FORMS: dict[str, tuple[Callable[[Map, Map], Map], Map]] = {
    "circle": (lambda x, y: np.sqrt(x * x + y * y) - 1, np.array((190, 70, 70))),
    "square": (lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.85, np.array((80, 180, 80))),
    "triangle": (lambda x, y: _sides(x, y, 3).max(axis=0) - 0.65, np.array((80, 90, 200))),
    # a pentagram's points lie outside at most one of a pentagon's five sides
    "star": (lambda x, y: np.sort(_sides(x, y, 5), axis=0)[-2] - 0.45, np.array((200, 180, 70))),
    "ring": (lambda x, y: np.abs(np.sqrt(x * x + y * y) - 0.75) - 0.3, np.array((180, 80, 190))),
}
"""Signed distance from the outline of a shape of about radius 1, negative inside; mean RGB."""

CLASSES = ("background", *_FORMS)
OBJECT_CLASSES = tuple(_FORMS)
"""Likewise in `Seen`: without the background."""

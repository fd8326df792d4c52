"""Where a photograph's pixels go in a model's input: cut, resized, cropped and padded as declared.

Each rule is some library's own, so that a pixel of ours is a pixel of theirs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.spec import Preprocess
from vitedge.data.decode import MAX_PIXELS, Skip
from vitedge.data.samples import Taps, blurred, cubic, gather, linear

Color = int | tuple[int, ...]


def fit(
    image: Image.Image, preprocess: Preprocess, color: Color | None = None
) -> NDArray[np.uint8]:
    """Resize, crop and pad: (H, W, 3) uint8. Raises Skip for what would grow too large.

    Pillow's filters unless `sampling` says otherwise, and the rounding of torchvision's Resize and
    CenterCrop or, with `crop_rounding` down, that of Hugging Face's image processors. `color` of
    what is padded replaces `pad_color`, for images of another mode (masks).
    """
    height, width = preprocess.height, preprocess.width
    color = preprocess.pad_color if color is None else color
    if preprocess.resize == "box":
        return _boxed(np.asarray(image), preprocess, color)
    image = _prepared(image, preprocess, color)
    for size in resized_sizes(image.width, image.height, preprocess):
        if size[0] * size[1] > MAX_PIXELS:  # a sliver, blown up until its short side fits
            raise Skip("too large")
        if 0 in size:
            raise Skip("too thin")
        image = _resized(image, size, preprocess)
    if image.size != (width, height):
        image = _placed(image, preprocess, color)
    return np.asarray(image)


def unchanged(width: int, height: int, preprocess: Preprocess) -> bool:
    """Whether images of `width` × `height` pixels are a model's input as they are."""
    return (
        (width, height) == (preprocess.width, preprocess.height)
        and all(size == (width, height) for size in resized_sizes(width, height, preprocess))
        and preprocess.resize != "box"
        and preprocess.pad != "mirror"
        and not preprocess.crop_share
    )


def resized_sizes(w: int, h: int, preprocess: Preprocess) -> list[tuple[int, int]]:
    """Widths and heights that a w × h image is resized to, in turn, before it is cropped."""
    height, width = preprocess.height, preprocess.width
    if preprocess.resize_px:
        height = width = preprocess.resize_px
    if preprocess.resize == "exact":
        return [(width, height)]
    if preprocess.resize == "inside":
        return [_inside(w, h, width, height, preprocess.resize_rounding)]
    if not preprocess.resize_px:
        whole = round if preprocess.resize_rounding == "nearest" else math.floor
        if w * height <= h * width:  # the width needs the larger scale
            return [(width, whole(h * width / w))]
        return [(whole(w * height / h), height)]
    first = _shorter_side(w, h, preprocess)
    if preprocess.resize == "shorter_side":
        return [first]
    return [first, _thumbnail(*first, preprocess.width, preprocess.height)]


def _shorter_side(w: int, h: int, preprocess: Preprocess) -> tuple[int, int]:
    """As DETR: less than asked where the longer one would exceed its limit."""
    side, limit = preprocess.resize_px, preprocess.resize_limit_px
    short, long = min(w, h), max(w, h)
    exact = float(side)
    if limit and long / short * side > limit:
        exact = limit * short / long
        side = round(exact)
    if short == side:
        return w, h
    whole = round if preprocess.resize_rounding == "nearest" else int
    other = whole(exact * long / short)
    return (side, other) if w < h else (other, side)


def _inside(w: int, h: int, width: int, height: int, rounding: str) -> tuple[int, int]:
    """In the arithmetic of SAM and of Paddle's recognizers, whose last digits decide at times."""
    scale = min(height / h, width / w)
    if rounding == "up":
        new_w, new_h = math.ceil(height * (w / h)), math.ceil(width * (h / w))
    else:
        half = 0.5 if rounding == "nearest" else 0.0
        new_w, new_h = int(w * scale + half), int(h * scale + half)
    return max(1, min(new_w, width)), max(1, min(new_h, height))


def _thumbnail(w: int, h: int, width: int, height: int) -> tuple[int, int]:
    """As Donut: no more than either side; the other follows, rounded down."""
    new_w, new_h = min(w, width), min(h, height)
    if (new_w, new_h) == (w, h) or w == h:
        return new_w, new_h
    return (w * new_h // h, new_h) if h > w else (new_w, h * new_w // w)


def _prepared(image: Image.Image, preprocess: Preprocess, color: Color) -> Image.Image:
    """What is cut off or added before resizing."""
    if preprocess.crop_share:
        side = int(preprocess.crop_share * min(image.size))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))
    if preprocess.pad == "square":
        side = max(image.size)
        if side * side > MAX_PIXELS:
            raise Skip("too large")
        return _canvas(image, (side, side), (0, 0), color)
    if preprocess.pad == "mirror":  # as ZoeDepth
        y, x = (mirrored(side) for side in (image.height, image.width))
        pixels = np.asarray(image)
        around = ((y, y), (x, x), (0, 0))[: pixels.ndim]
        return Image.fromarray(np.pad(pixels, around, mode="reflect"))
    return image


def mirrored(side: int) -> int:
    """Pixels that are mirrored beyond each end of a side, as ZoeDepth has it."""
    return int(math.sqrt(side / 2) * 3)


def _resized(image: Image.Image, size: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    name = preprocess.interpolation
    if preprocess.sampling == "filter" or name == "nearest":
        same = image.size == size
        return image if same else image.resize(size, Image.Resampling[name.upper()])
    pixels = np.asarray(image)
    for axis, new in enumerate(reversed(size)):
        old = pixels.shape[axis]
        if preprocess.sampling == "corners":
            positions = np.arange(new) * ((old - 1) / max(new - 1, 1))
        else:
            positions = (np.arange(new) + 0.5) * (old / new) - 0.5
        pixels = gather(pixels, axis, _taps(positions, old, old / new, preprocess))
    return Image.fromarray(_bytes(pixels))


def _taps(positions: NDArray[np.float64], old: int, shrunk: float, preprocess: Preprocess) -> Taps:
    if preprocess.sampling == "blur":
        return blurred(positions, old, shrunk)
    return (cubic if preprocess.interpolation == "bicubic" else linear)(positions, old)


def _boxed(pixels: NDArray[np.uint8], preprocess: Preprocess, color: Color) -> NDArray[np.uint8]:
    """As ViTPose takes a person as large as the image: corners on those of 1.25 times that.

    Outside it is black or, with the nearest pixels taken, which masks are, `color`.
    """
    sides = np.array(pixels.shape[:2], dtype=np.float64)
    new = np.array((preprocess.height, preprocess.width))
    box = 1.25 * new * (sides / new).max()
    result: Any = pixels
    nearest = preprocess.interpolation == "nearest"
    for axis in (0, 1):
        positions = np.arange(new[axis]) * (box[axis] / (new[axis] - 1))
        positions += (sides[axis] - box[axis]) / 2
        indices, weights = linear(positions, pixels.shape[axis])
        within = (positions >= 0) & (positions <= sides[axis] - 1)
        if nearest:
            result = np.take(result, np.rint(positions).astype(np.intp), axis, mode="clip")
            result[(slice(None),) * axis + (~within,)] = color
            continue
        result = gather(result, axis, (indices, weights * within[:, None]))
    boxed: NDArray[np.uint8] = result if nearest else _bytes(result)
    return boxed


def _bytes(pixels: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _placed(image: Image.Image, preprocess: Preprocess, color: Color) -> Image.Image:
    """Crop the centre of what is too large, pad what is too small."""
    size = (preprocess.width, preprocess.height)
    offsets = margins(image.size, preprocess)
    if size[0] > image.width or size[1] > image.height:
        return _canvas(image, size, offsets, color)
    left, top = -offsets[0], -offsets[1]
    return image.crop((left, top, left + size[0], top + size[1]))


def margins(resized: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Left and top of an image of the width and height `resized` in the input; negative: cut."""
    half = round if preprocess.crop_rounding == "even" else math.floor
    at_end = preprocess.pad == "end"
    left, top = (
        0 if at_end and new > old else -half((old - new) / 2) if old > new else (new - old) // 2
        for old, new in zip(resized, (preprocess.width, preprocess.height), strict=True)
    )
    return left, top


def _canvas(
    image: Image.Image, size: tuple[int, int], corner: tuple[int, int], color: Color
) -> Image.Image:
    canvas = Image.new(image.mode, size, color)
    canvas.paste(image, corner)
    return canvas

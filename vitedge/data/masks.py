"""Images with a class index for every pixel: `images/` beside `masks/`, or an .npz with `masks`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.errors import InputError, SharedError, first_few
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, decode, listing, read_images
from vitedge.data.geometry import fit
from vitedge.data.imageset import UNLABELLED, ImageSet, Sample

IGNORED = 255
"""The class index, by convention, of pixels that count for nothing."""


def open_folder(path: str, preprocess: Preprocess, num_classes: int) -> ImageSet:
    """`path/images/NAME.jpg` with `path/masks/NAME.png`, 8 bits a pixel, 255 where ignored.

    Raises InputError where a mask is missing, or holds a class the model does not have.
    """
    images, masks = (_by_stem(os.path.join(path, part)) for part in ("images", "masks"))
    if not images:
        raise InputError(
            f"there are no images in '{path}/images'",
            fix="put NAME.jpg in images/ and a PNG of class indices, NAME.png, in masks/",
        )
    unmatched = sorted(images.keys() - masks.keys())
    if unmatched:
        raise InputError(
            f"{len(unmatched)} images of '{path}' have no mask: {first_few(unmatched)}",
            fix="give each images/NAME.* a masks/NAME.png",
        )
    stems = sorted(images)

    def load(index: int) -> Sample:
        image = decode(images[stems[index]], preprocess.exif)
        mask = _decode_mask(masks[stems[index]])
        if image.size != mask.size:
            raise Skip("of another size than its mask")
        return fit(image, preprocess), _fitted(mask, preprocess, num_classes, masks[stems[index]])

    paths = [images[stem] for stem in stems]
    return ImageSet(path, len(stems), load, decodes=True, paths=paths)


def open_npz(path: str, preprocess: Preprocess, num_classes: int) -> ImageSet:
    """An .npz with `images` (n, H, W, 3) uint8 and `masks` (n, H, W).

    Ignored are negative indices and, where the model has no such class, 255.
    """
    images, masks = read_images(path, "masks")
    if masks is None or masks.dtype.kind not in "iu" or masks.shape != images.shape[:3]:
        actual = "missing" if masks is None else f"{masks.dtype} {masks.shape}"
        raise InputError(
            f"'masks' of '{path}' is {actual}, not integer {images.shape[:3]}",
            fix="save one class index for every pixel",
        )

    def load(index: int) -> Sample:
        mask = Image.fromarray(masks[index].astype(np.int32))
        image = fit(Image.fromarray(images[index]), preprocess)
        return image, _fitted(mask, preprocess, num_classes, path)

    return ImageSet(path, len(images), load, decodes=True)


def _by_stem(folder: str) -> dict[str, str]:
    """Image files of `folder` by name without suffix. Raises InputError where two share one."""
    by_stem: dict[str, str] = {}
    for path in listing(folder)[1] if os.path.isdir(folder) else ():
        stem = Path(path).stem
        if stem in by_stem:
            raise InputError(
                f"'{by_stem[stem]}' and '{path}' have one name", fix="keep one of the two"
            )
        by_stem[stem] = path
    return by_stem


def _decode_mask(path: str) -> Image.Image:
    """Class indices as 32-bit integers; a palette's colours are not looked at."""
    try:
        with Image.open(path, formats=("PNG",)) as mask:
            if mask.mode not in ("L", "P", "1"):
                raise Skip(f"with a mask of pixel format {mask.mode}, not 8-bit grey or palette")
            return Image.fromarray(np.asarray(mask).astype(np.int32))
    except Skip:
        raise
    except Exception:
        raise Skip("with a mask that is corrupt or no PNG") from None


def _fitted(
    mask: Image.Image, preprocess: Preprocess, num_classes: int, path: str
) -> NDArray[np.int16]:
    """The mask where the model's input has its pixels, (H, W); ignored ones are -1."""
    nearest = msgspec.structs.replace(preprocess, interpolation="nearest")
    indices = fit(mask, nearest, UNLABELLED)
    ignored = (indices < 0) | ((indices == IGNORED) & (num_classes <= IGNORED))
    indices = np.where(ignored, UNLABELLED, indices)
    if indices.max() >= num_classes:
        raise SharedError(
            f"a mask in '{path}' holds class {indices.max()}, "
            f"and the model's classes are 0 to {num_classes - 1}",
            fix="give class indices in the order of the model's outputs, and 255 where ignored",
        )
    return indices.astype(np.int16)

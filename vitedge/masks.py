"""Images with a class index for every pixel: `images/` beside `masks/`, or an .npz with `masks`."""

from __future__ import annotations

import os

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.decode import SUFFIXES, Skip, decode, fit
from vitedge.errors import InputError
from vitedge.imageset import UNLABELLED, ImageSet, Sample
from vitedge.npz import read_images
from vitedge.spec import Preprocess

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
    alone = sorted(images.keys() - masks.keys())
    if alone:
        raise InputError(
            f"{len(alone)} images of '{path}' have no mask: "
            f"{', '.join(alone[:5])}{', …' if len(alone) > 5 else ''}",
            fix="give each images/NAME.* a masks/NAME.png",
        )
    stems = sorted(images)

    def load(index: int) -> Sample:
        image, mask = decode(images[stems[index]]), _decode_mask(masks[stems[index]])
        if image.size != mask.size:
            raise Skip("of another size than its mask")
        return fit(image, preprocess), _fitted(mask, preprocess, num_classes, path)

    return ImageSet(path, len(stems), load, decodes=True)


def open_npz(path: str, preprocess: Preprocess, num_classes: int) -> ImageSet:
    """An .npz with `images` (n, H, W, 3) uint8 and `masks` (n, H, W), 255 where ignored."""
    images, masks = read_images(path, "masks")
    if masks is None or masks.dtype.kind not in "iu" or masks.shape != images.shape[:3]:
        found = "missing" if masks is None else f"{masks.dtype} {masks.shape}"
        raise InputError(
            f"'masks' of '{path}' is {found}, not integer {images.shape[:3]}",
            fix="save one class index for every pixel",
        )
    ignored = (masks < 0) | (masks == IGNORED)
    indices = np.where(ignored, IGNORED, np.clip(masks, 0, IGNORED - 1)).astype(np.uint8)

    def load(index: int) -> Sample:
        mask = Image.fromarray(indices[index])
        image = fit(Image.fromarray(images[index]), preprocess)
        return image, _fitted(mask, preprocess, num_classes, path)

    return ImageSet(path, len(images), load, decodes=True)


def _by_stem(folder: str) -> dict[str, str]:
    """Image files of `folder` by name without suffix."""
    if not os.path.isdir(folder):
        return {}
    with os.scandir(folder) as entries:
        paths = [e.path for e in entries if e.name[0] != "." and e.name.lower().endswith(SUFFIXES)]
    return {os.path.splitext(os.path.basename(path))[0]: path for path in paths}


def _decode_mask(path: str) -> Image.Image:
    """Class indices as 8-bit grey; a palette's colours are not looked at."""
    try:
        with Image.open(path, formats=("PNG",)) as mask:
            if mask.mode not in ("L", "P", "1"):
                raise Skip(f"with a mask of pixel format {mask.mode}")
            return Image.fromarray(np.asarray(mask).astype(np.uint8))
    except Skip:
        raise
    except Exception:
        raise Skip("with a mask that is corrupt or no PNG") from None


def _fitted(
    mask: Image.Image, preprocess: Preprocess, num_classes: int, path: str
) -> NDArray[np.int16]:
    """The mask where the model's input has its pixels, (H, W); ignored ones are -1."""
    nearest = msgspec.structs.replace(preprocess, interpolation="nearest")
    indices = fit(mask, nearest).astype(np.int16)
    indices[indices == IGNORED] = UNLABELLED
    if indices.max() >= num_classes:
        raise InputError(
            f"a mask of '{path}' holds class {indices.max()}, "
            f"and the model's classes are 0 to {num_classes - 1}",
            fix="give class indices in the order of the model's outputs, and 255 where ignored",
        )
    return indices

"""Images with the objects on them: `images/` beside `annotations.json` (COCO), or an .npz.

Boxes that no object can have are refused: each would count as one that every model misses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.annotations import check_boxes, read_annotations
from vitedge.data.decode import Skip, decode, read_arrays
from vitedge.data.geometry import fit
from vitedge.data.imageset import ImageSet, Objects, Sample
from vitedge.data.placement import placement

ANNOTATIONS = "annotations.json"
_ALWAYS = ("boxes", "box_classes", "box_images")
_NPZ = (*_ALWAYS, "box_areas", "box_crowds")


def open_folder(path: str, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    """`path/images/` and `path/annotations.json`, as COCO has them.

    Categories are the model's classes by their names; of a model without names by their order or,
    where that cannot be, by their ids. An image that is listed and not there is skipped, and
    counted. Raises InputError where categories do not fit the model, or boxes an object.
    """
    annotations = read_annotations(os.path.join(path, ANNOTATIONS), labels)
    files = [os.path.join(path, "images", name) for name in annotations.files]

    def load(index: int) -> Sample:
        if not os.path.exists(files[index]):
            raise Skip("listed and missing")
        image = decode(files[index], preprocess.exif)
        if image.size != annotations.sizes[index]:
            raise Skip("of another size than annotated")
        objects = Objects(*annotations.objects[index], placement(image.size, preprocess))
        return fit(image, preprocess), objects

    return ImageSet(path, len(files), load, decodes=True, paths=files)


def open_npz(path: str, preprocess: Preprocess, num_classes: int) -> ImageSet:
    """An .npz with `images` (n, H, W, 3) uint8 and, of m objects on them, `boxes` (m, 4): left,
    top, width and height, pixels; `box_classes` (m,), `box_images` (m,) which image each is on,
    and, where they are known, `box_areas` (m,) pixels and `box_crowds` (m,) bool.

    Raises InputError for arrays of any other kind, and boxes that no object can have.
    """
    arrays = read_arrays(path, _NPZ)
    images = arrays["images"]
    _check(path, arrays, len(images), num_classes)
    boxes = arrays["boxes"].astype(np.float64)
    of_image = arrays["box_images"]
    size = (images.shape[2], images.shape[1])
    names = [f"box {place}" for place in range(len(boxes))]
    check_boxes(boxes, [size] * len(boxes), names, path)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    areas = arrays.get("box_areas", boxes[:, 2] * boxes[:, 3]).astype(np.float32)
    crowds = arrays.get("box_crowds", np.zeros(len(boxes))).astype(bool)
    place = placement(size, preprocess)

    def load(index: int) -> Sample:
        own = of_image == index
        objects = Objects(
            corners[own].astype(np.float32),
            arrays["box_classes"][own].astype(np.int64),
            areas[own],
            crowds[own],
            place,
        )
        return fit(Image.fromarray(images[index]), preprocess), objects

    return ImageSet(path, len(images), load, decodes=True)


def _check(path: str, arrays: dict[str, NDArray[Any]], images: int, num_classes: int) -> None:
    """Raise InputError for arrays that are no boxes of so many images and classes."""
    fix = f"save {', '.join(_ALWAYS)}: left, top, width and height of each, its class, its image"
    count = len(arrays.get("boxes", ()))
    for name in _NPZ:
        if name not in arrays:
            if name in _ALWAYS:
                raise InputError(f"'{path}' has no array '{name}'", fix=fix)
            continue
        array, shape = arrays[name], (count, 4) if name == "boxes" else (count,)
        kinds = "iu" if name in ("box_classes", "box_images") else "iufb"
        if array.shape != shape or array.dtype.kind not in kinds:
            kind = "integer" if kinds == "iu" else "numbers"
            raise InputError(
                f"'{name}' of '{path}' is {array.dtype} {array.shape}, not {kind} {shape}", fix=fix
            )
    limits = (("box_images", images, "images"), ("box_classes", num_classes, "the model's classes"))
    for name, limit, what in limits:
        outside = (arrays[name] < 0) | (arrays[name] >= (limit or np.inf))
        if outside.any():
            raise InputError(
                f"'{name}' of '{path}' has {arrays[name][outside][0]}, and {what} are 0 to "
                f"{limit - 1 if limit else '…'}",
                fix=fix,
            )

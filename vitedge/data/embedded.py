"""Data sets that ship with vitedge, noise, and images in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess, Task
from vitedge.data import shapes
from vitedge.data.geometry import fit, unchanged
from vitedge.data.imageset import UNLABELLED, ImageSet, Objects, Sample
from vitedge.data.placement import placement
from vitedge.data.role import BESIDE, TRUTHS, Role

NUM_RANDOM = 1000
"""Images in the set `random`."""
_DIGITS = Path(__file__).with_name("digits.npz")


def open_digits(role: Role, preprocess: Preprocess, labels: Sequence[str], task: Task) -> ImageSet:
    if role == "evaluation" and task in TRUTHS:
        raise InputError(f"'digits' has no {TRUTHS[task]}", fix=BESIDE[task])
    images, classes, held_out = _digits()
    if role == "evaluation" and labels:
        _check_classes("digits", 10, labels)
    part = held_out == (role == "evaluation")
    return in_memory("digits", images[part], classes[part], preprocess, classes[part])


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Images (1797, 32, 32, 3), labels and whether held out of training.

    Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), scikit-learn's copy.
    """
    with np.load(_DIGITS, allow_pickle=False) as file:
        small, labels, held_out = file["images"], file["labels"], file["held_out"]
    grey = np.round(small * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    large = [Image.fromarray(g).resize((32, 32), Image.Resampling.BICUBIC) for g in grey]
    images = np.stack([np.asarray(i.convert("RGB")) for i in large])
    return images, labels.astype(np.int64), held_out


def open_shapes(role: Role, preprocess: Preprocess, labels: Sequence[str], task: Task) -> ImageSet:
    """Held-out images, with their masks or boxes, or unlabelled training images to calibrate."""
    indices = shapes.HELD_OUT if role == "evaluation" else shapes.TRAINING
    masked, boxed = (role == "evaluation" and task == t for t in ("segmentation", "detection"))
    if role == "evaluation" and task == "classification":
        raise InputError(
            "'shapes' has masks and boxes and no labels", fix="give images of one class each"
        )
    if masked or boxed:
        _check_classes("shapes", len(shapes.CLASSES if masked else shapes.OBJECT_CLASSES), labels)
    place = placement((shapes.SIDE_PX, shapes.SIDE_PX), preprocess)
    nearest = msgspec.structs.replace(preprocess, interpolation="nearest")

    def load(index: int) -> Sample:
        if boxed:
            image, seen = shapes.draw_objects(indices[index])
            crowds = np.zeros(len(seen.boxes), bool)
            return fit(Image.fromarray(image), preprocess), Objects(*seen, crowds, place)
        image, mask = shapes.draw(indices[index])
        classes = Image.fromarray(mask.astype(np.int32))
        fitted = fit(classes, nearest, UNLABELLED).astype(np.int16) if masked else UNLABELLED
        return fit(Image.fromarray(image), preprocess), fitted

    return ImageSet("shapes", len(indices), load, decodes=True)


def _check_classes(name: str, count: int, labels: Sequence[str]) -> None:
    if len(labels) != count:
        raise InputError(
            f"'{name}' has {count} classes and the model has {len(labels)}",
            fix="give images of the model's own classes",
        )


def open_random(role: Role, preprocess: Preprocess) -> ImageSet:
    if role == "evaluation":
        raise InputError(
            "'random' is noise: no accuracy can be measured on it",
            fix="give labelled images, or 'digits' with the embedded reference model",
        )
    shape = (preprocess.height, preprocess.width, 3)

    def load(index: int) -> Sample:
        raw = np.random.RandomState(index).bytes(shape[0] * shape[1] * shape[2])
        return np.frombuffer(raw, np.uint8).reshape(shape), UNLABELLED

    return ImageSet("random", NUM_RANDOM, load, decodes=False)


def of_arrays(
    path: str,
    images: NDArray[np.uint8],
    classes: NDArray[Any] | None,
    role: Role,
    preprocess: Preprocess,
    labels: Sequence[str],
) -> ImageSet:
    if classes is None:
        if role == "evaluation":
            raise InputError(
                f"'{path}' has no array 'labels'",
                fix="save it as numpy.savez(path, images=..., labels=...)",
            )
        classes = np.full(len(images), UNLABELLED)
    if classes.dtype.kind not in "iu" or classes.shape != (len(images),):
        raise InputError(
            f"'labels' of '{path}' is {classes.dtype} {classes.shape}, "
            f"not integer ({len(images)},)",
            fix="save one class index for every image",
        )
    classes = classes.astype(np.int64)
    outside = (classes < 0) | (classes >= (len(labels) or np.inf))
    if role == "evaluation" and outside.any():
        raise InputError(
            f"'labels' of '{path}' has {classes[outside][0]}, "
            f"and the model's classes are 0 to {len(labels) - 1 if labels else '…'}",
            fix="give class indices in the order of the model's outputs",
        )
    known = np.where(outside, UNLABELLED, classes)  # calibration needs no labels
    return in_memory(str(path), images, known, preprocess, classes)


def in_memory(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    preprocess: Preprocess,
    classes: NDArray[np.int64],
) -> ImageSet:
    """`labels` are the model's, `classes` those of the set."""
    ready = unchanged(images.shape[2], images.shape[1], preprocess)
    whole = np.ascontiguousarray(images)

    def load(index: int) -> Sample:
        image = whole[index] if ready else fit(Image.fromarray(whole[index]), preprocess)
        return image, int(labels[index])

    def listing() -> tuple[str, ...]:
        return tuple(hashlib.sha256(a.tobytes()).hexdigest() for a in (whole, labels, classes))

    strata = classes.tolist()
    return ImageSet(name, len(labels), load, decodes=not ready, strata=strata, listing=listing)

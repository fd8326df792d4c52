"""Images, wherever they are, become uint8 batches of the model's input size, streamed.

An image that cannot be decoded to exactly what its author meant is skipped and counted, or
refused: never a wrong tensor. NumPy and Pillow only, so that a device without torch can use it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.errors import InputError, first_few, nearest
from vitedge.core.spec import WITH_CLASSES, Preprocess, Task
from vitedge.data import boxes, masks, shapes
from vitedge.data.decode import (
    Skip,
    check_images,
    decode,
    folders_below,
    listing,
    read_images,
)
from vitedge.data.geometry import fit, unchanged
from vitedge.data.imageset import UNLABELLED, ImageSet, Objects, Sample
from vitedge.data.placement import placement

Role = Literal["calibration", "evaluation"]

EMBEDDED = ("digits", "shapes")
"""Data sets that ship with vitedge, each with the model of the same name."""
NUM_RANDOM = 1000
"""Images in the set `random`."""
_DIGITS = Path(__file__).with_name("digits.npz")
_TRUTHS: dict[Task, str] = {"segmentation": "masks", "detection": "boxes"}
"""What tasks are evaluated on that is more than a class for each image."""
_BESIDE: dict[Task, str] = {
    "segmentation": "give a folder with images/ and masks/, or an .npz",
    "detection": "give a folder with images/ and annotations.json, or an .npz",
}
_ACCEPTED = "an image folder (class_name/*.png|jpg|jpeg|webp) or an .npz with 'images' and 'labels'"


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images in memory, and their labels where they are known."""

    images: NDArray[np.uint8]
    """(N, H, W, 3), RGB."""
    labels: NDArray[np.int64] | None = None
    """(N,) class indices in the order of the model's outputs."""

    def __str__(self) -> str:
        return "memory"


Source: TypeAlias = str | Arrays
Pixels: TypeAlias = "NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.int64]]"
Data: TypeAlias = "str | os.PathLike[str] | Pixels"
"""Images as the API takes them: a path, a name (`digits`), or arrays, with their labels or not."""


def source_of(data: Data) -> Source:
    """`data` as `open_images` takes it. Raises InputError for arrays that are no images."""
    if isinstance(data, (str, os.PathLike)):
        return os.fspath(data)
    images, labels = data if isinstance(data, tuple) else (data, None)
    check_images(images, "the array of images")
    return Arrays(images, labels)


def open_images(
    path: Source,
    role: Role,
    preprocess: Preprocess,
    labels: Sequence[str],
    task: Task = "classification",
) -> ImageSet:
    """Open `digits`, `shapes`, `random`, an .npz or an image folder, without decoding anything yet.

    `labels` are the model's class names, in the order of its outputs. Segmentation needs masks to
    evaluate on (`vitedge.data.masks`), detection boxes (`vitedge.data.boxes`); dense maps and
    features need no labels. Raises InputError when there is nothing usable at `path`, or, for
    evaluation, when its labels are not the model's.
    """
    if isinstance(path, Arrays):
        if role == "evaluation" and task in _TRUTHS:
            raise InputError(f"{_TRUTHS[task]} are not taken from memory", fix=_BESIDE[task])
        role = role if task in WITH_CLASSES else "calibration"
        return _of_arrays(path, path.images, path.labels, role, preprocess, labels)
    if path == "random":
        return _open_random(role, preprocess)
    if path == "digits":
        return _open_digits(role, preprocess, labels, task)
    if path == "shapes":
        return _open_shapes(role, preprocess, labels, task)
    location = Path(path)
    truth = _TRUTHS.get(task, "") if role == "evaluation" else ""
    if task not in WITH_CLASSES:
        role = "calibration"  # no labels needed
    if location.is_dir():
        if truth == "masks":
            return masks.open_folder(path, preprocess, len(labels))
        if truth == "boxes":
            return boxes.open_folder(path, preprocess, labels)
        if task in _TRUTHS and (location / "images").is_dir():
            path = str(location / "images")
        return _open_folder(path, role, preprocess, labels)
    if location.is_file() and location.suffix.lower() == ".npz":
        if truth == "masks":
            return masks.open_npz(path, preprocess, len(labels))
        if truth == "boxes":
            return boxes.open_npz(path, preprocess, len(labels))
        return _of_arrays(path, *read_images(path, "labels"), role, preprocess, labels)
    if location.exists():
        raise InputError(f"'{path}' is not a data set", fix=f"give {_ACCEPTED}")
    known = (*EMBEDDED, "random") if role == "calibration" else EMBEDDED
    raise InputError(f"there is no '{path}'", fix=f"{nearest(path, known)}, or give {_ACCEPTED}")


def has_labels(source: Source, task: Task) -> bool:
    """Whether images to evaluate a `task` on have the labels or masks that it takes, if any.

    Raises InputError for a file or a folder that cannot be read.
    """
    if isinstance(source, Arrays):
        return source.labels is not None or task not in WITH_CLASSES
    location, target = Path(source), _TRUTHS.get(task, "labels")
    if task not in WITH_CLASSES or not location.exists():
        return True
    if location.is_dir():
        if task == "detection":
            return (location / boxes.ANNOTATIONS).exists()
        folders, files = listing(source)
        return target in folders if task == "segmentation" else bool(folders) or not files
    return location.suffix.lower() != ".npz" or read_images(source, target)[1] is not None


def _open_digits(role: Role, preprocess: Preprocess, labels: Sequence[str], task: Task) -> ImageSet:
    if role == "evaluation" and task in _TRUTHS:
        raise InputError(f"'digits' has no {_TRUTHS[task]}", fix=_BESIDE[task])
    images, classes, held_out = _digits()
    if role == "evaluation" and labels:
        _check_classes("digits", 10, labels)
    part = held_out == (role == "evaluation")
    return _in_memory("digits", images[part], classes[part], preprocess, classes[part])


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


def _open_shapes(role: Role, preprocess: Preprocess, labels: Sequence[str], task: Task) -> ImageSet:
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


def _open_random(role: Role, preprocess: Preprocess) -> ImageSet:
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


def _of_arrays(
    path: Source,
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
    return _in_memory(str(path), images, known, preprocess, classes)


def _in_memory(
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

    return ImageSet(name, len(labels), load, decodes=not ready, strata=classes.tolist())


def _open_folder(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    """An ImageFolder; names that begin with a dot are not looked at."""
    folders, files = listing(path)
    if role == "evaluation" and files and not folders:
        raise InputError(
            f"'{path}' has no class folders, so its images have no labels",
            fix="sort them into one folder per class: class_name/image.png",
        )
    index_of = class_indices(path, folders, labels, role)
    classes = [UNLABELLED] * len(files)
    strata = list(classes)
    for number, folder in enumerate(folders):
        below = folders_below(os.path.join(path, folder), outside=path)
        class_files = [file for place in below for file in listing(place)[1]]
        files += class_files
        classes += [index_of.get(folder, UNLABELLED)] * len(class_files)
        strata += [number] * len(class_files)
    if not files:
        raise InputError(f"there are no images in '{path}'", fix=f"give {_ACCEPTED}")

    def load(index: int) -> Sample:
        if role == "evaluation" and classes[index] == UNLABELLED:
            raise Skip("outside the class folders")
        return fit(decode(files[index], preprocess.exif), preprocess), classes[index]

    return ImageSet(path, len(files), load, decodes=True, strata=strata, paths=files)


def class_indices(
    path: str, folders: Sequence[str], labels: Sequence[str], role: Role
) -> dict[str, int]:
    """Class folder -> index of the model's class; for calibration, empty where none fits."""
    count, index_of = Counter(labels), {name: index for index, name in enumerate(labels)}
    unknown = [name for name in folders if count[name] != 1]  # absent, or not one class alone
    if not unknown:
        return index_of
    numbered = list(labels) == list(map(str, range(len(labels))))  # the model has no real names
    imagenet = all(re.fullmatch(r"n\d{8}", name) for name in folders)  # numbered in this order
    if not labels or ((numbered or imagenet) and len(folders) == len(labels)):
        return {name: i for i, name in enumerate(folders)}
    if role == "calibration":
        return {}
    if numbered:
        raise InputError(
            f"'{path}' has {len(folders)} class folders and the model has {len(labels)} classes",
            fix="keep one folder for every class, or name the folders by class index",
        )
    raise InputError(
        f"{len(unknown)} class folders of '{path}' do not name a class of the model: "
        f"{first_few(unknown)}",
        fix=f"name folders as the model's labels.txt does ({', '.join(labels[:3])}, …)",
    )

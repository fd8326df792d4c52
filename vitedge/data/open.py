"""Images, wherever they are, become uint8 batches of the model's input size, streamed.

An image that cannot be decoded to exactly what its author meant is skipped and counted, or
refused: never a wrong tensor. NumPy and Pillow only, so that a device without torch can use it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError, nearest
from vitedge.core.spec import WITH_CLASSES, Preprocess, Task
from vitedge.data import boxes, image_list, masks
from vitedge.data.decode import check_images, listing, read_images
from vitedge.data.embedded import of_arrays, open_digits, open_random, open_shapes
from vitedge.data.folder import open_folder
from vitedge.data.imageset import ImageSet
from vitedge.data.parquet import open_parquet, parquet_files
from vitedge.data.role import ACCEPTED, BESIDE, TRUTHS, Role
from vitedge.data.webdataset import open_tars, tar_files

EMBEDDED = ("digits", "shapes")
"""Data sets that ship with vitedge, each with the model of the same name."""


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
        if role == "evaluation" and task in TRUTHS:
            raise InputError(f"{TRUTHS[task]} are not taken from memory", fix=BESIDE[task])
        role = role if task in WITH_CLASSES else "calibration"
        return of_arrays(str(path), path.images, path.labels, role, preprocess, labels)
    if path == "random":
        return open_random(role, preprocess)
    if path == "digits":
        return open_digits(role, preprocess, labels, task)
    if path == "shapes":
        return open_shapes(role, preprocess, labels, task)
    location = Path(path)
    truth = TRUTHS.get(task, "") if role == "evaluation" else ""
    if task not in WITH_CLASSES:
        role = "calibration"  # no labels needed
    if not truth and (files := tar_files(path)):
        return open_tars(path, files, role, preprocess, labels)
    if not truth and (files := parquet_files(path)):
        return open_parquet(path, files, role, preprocess, labels)
    if location.suffix == image_list.SUFFIX and location.is_file():
        if truth:
            raise InputError(f"a list of images has no {truth}", fix=BESIDE[task])
        return image_list.open_list(path, role, preprocess, labels)
    if location.is_dir():
        if truth == "masks":
            return masks.open_folder(path, preprocess, len(labels))
        if truth == "boxes":
            return boxes.open_folder(path, preprocess, labels)
        if task in TRUTHS and (location / "images").is_dir():
            path = str(location / "images")
        return open_folder(path, role, preprocess, labels)
    if location.is_file() and location.suffix.lower() == ".npz":
        if truth == "masks":
            return masks.open_npz(path, preprocess, len(labels))
        if truth == "boxes":
            return boxes.open_npz(path, preprocess, len(labels))
        return of_arrays(path, *read_images(path, "labels"), role, preprocess, labels)
    if location.exists():
        raise InputError(f"'{path}' is not a data set", fix=f"give {ACCEPTED}")
    known = (*EMBEDDED, "random") if role == "calibration" else EMBEDDED
    raise InputError(f"there is no '{path}'", fix=f"{nearest(path, known)}, or give {ACCEPTED}")


def has_labels(source: Source, task: Task) -> bool:
    """Whether images to evaluate a `task` on have the labels or masks that it takes, if any.

    Raises InputError for a file or a folder that cannot be read.
    """
    if isinstance(source, Arrays):
        return source.labels is not None or task not in WITH_CLASSES
    location, target = Path(source), TRUTHS.get(task, "labels")
    if task not in WITH_CLASSES or not location.exists():
        return True
    if tar_files(source) or parquet_files(source):
        return True
    if location.is_dir():
        if task == "detection":
            return (location / boxes.ANNOTATIONS).exists()
        folders, files = listing(source)
        return target in folders if task == "segmentation" else bool(folders) or not files
    return location.suffix.lower() != ".npz" or read_images(source, target)[1] is not None

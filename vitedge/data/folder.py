"""Image folders: a class a folder, or none."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from vitedge.core.errors import InputError, first_few
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, decode, folders_below, listing
from vitedge.data.geometry import fit
from vitedge.data.imageset import UNLABELLED, ImageSet, Sample
from vitedge.data.role import ACCEPTED, Role


def open_folder(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
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
        raise InputError(f"there are no images in '{path}'", fix=f"give {ACCEPTED}")

    def load(index: int) -> Sample:
        if role == "evaluation" and classes[index] == UNLABELLED:
            raise Skip("outside the class folders")
        return fit(decode(files[index], preprocess.exif), preprocess), classes[index]

    def lines() -> Iterator[str]:
        yield from folders
        yield from sizes(path, files)

    return ImageSet(path, len(files), load, decodes=True, strata=strata, paths=files, listing=lines)


def sizes(folder: str, files: Sequence[str]) -> Iterator[str]:
    """A line for each of the `files` in `folder`: its path there, and its bytes."""
    for file in files:
        try:
            size = os.stat(file).st_size
        except OSError:
            size = -1
        yield f"{size} {os.path.relpath(file, folder)}"


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

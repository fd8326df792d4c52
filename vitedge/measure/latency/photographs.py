"""The image files that `bench` times from file to outputs: chosen, and read once beforehand."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitedge.core.errors import InputError
from vitedge.data.decode import Skip, decode, folders_below, listing

MOST = 16
"""Of a folder: what stays in the page cache, and is decoded before anything is timed."""
FORMATS = "give 8-bit RGB or greyscale PNG, JPEG or WebP files"


@dataclass(frozen=True)
class Photographs:
    """Files that decode; they lie in the page cache."""

    name: str
    """Of the file or folder that was given."""
    paths: tuple[Path, ...]
    megapixels: tuple[float, float]
    """Of the smallest and the largest."""
    skipped: dict[str, int]
    """Those of the choice that are not usable, by reason."""


def photographs(path: Path) -> Photographs:
    """The image at `path`, or 16 at most of the folder there, and of those below it.

    Drawn at random, and the same on every machine, as folders are often sorted by class.
    Raises InputError where there is no image, or none that can be used.
    """
    files = _files(path)
    usable: list[tuple[Path, float]] = []
    skipped: Counter[str] = Counter()
    for file in files:
        try:
            image = decode(os.fspath(file), "apply")
        except Skip as skip:
            skipped[str(skip)] += 1
        else:
            usable.append((file, image.width * image.height / 1e6))
    if not usable:
        reasons = ", ".join(f"{n} {reason}" for reason, n in skipped.most_common())
        what = f"none of the {len(files)} images drawn of '{path}' is usable: {reasons}"
        if not path.is_dir():
            what = f"'{path}' is no usable image: {next(iter(skipped))}"
        raise InputError(what, fix=FORMATS)
    sizes = [megapixels for _, megapixels in usable]
    return Photographs(
        name=Path(os.path.abspath(path)).name or "images",
        paths=tuple(file for file, _ in usable),
        megapixels=(min(sizes), max(sizes)),
        skipped=dict(skipped),
    )


def _files(path: Path) -> list[Path]:
    if not os.path.lexists(path):
        raise InputError(
            f"`end_to_end`: there is no '{path}'", fix="give an image, or a folder of images"
        )
    if not path.is_dir():
        return [path]
    files = [Path(file) for folder in folders_below(os.fspath(path)) for file in listing(folder)[1]]
    if not files:
        raise InputError(f"there are no images in '{path}', nor in folders below it", fix=FORMATS)
    order = np.random.RandomState(0).permutation(len(files))  # NumPy keeps its streams frozen
    return [files[index] for index in order[:MOST]]

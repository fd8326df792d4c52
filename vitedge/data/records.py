"""Sets of encoded images that lie in other files than their own, read when they are wanted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, decode_bytes
from vitedge.data.folder import class_indices
from vitedge.data.geometry import fit
from vitedge.data.imageset import UNLABELLED, ImageSet, Sample
from vitedge.data.role import Role

IMAGE_BYTES = 2**28
"""Of an encoded image, at most."""


class Records(NamedTuple):
    """Images and their labels, some bytes an image in memory."""

    name: str
    classes: array[int]
    """(n,) in the set's own numbering, -1 where there is none."""
    names: tuple[str, ...]
    """Of the classes, in that order; empty where the set does not name them."""
    read: Callable[[int], bytes]
    """PNG, JPEG or WebP. Raises Skip, and InputError where the set is not what it was."""
    digest: Callable[[], str]
    """Of what the set says it holds."""
    unlabelled: str
    """What an image without a class lacks."""


def open_records(
    records: Records, role: Role, preprocess: Preprocess, labels: Sequence[str]
) -> ImageSet:
    """The set of them for a model of these `labels`. Raises InputError where they do not fit."""
    classes, names = records.classes, records.names
    if not classes:
        raise InputError(f"there are no images in '{records.name}'", fix="is it the right one?")
    most = max(classes)
    if role == "evaluation" and most <= UNLABELLED:
        raise InputError(
            f"no image of '{records.name}' has a label", fix=f"give each {records.unlabelled}"
        )
    index_of: Sequence[int]
    if names:
        of_name = class_indices(records.name, names, labels, role)
        index_of = [of_name.get(name, UNLABELLED) for name in names]
    else:
        index_of = range(min(most + 1, len(labels) or most + 1))
    if role == "evaluation" and most >= len(index_of):
        raise InputError(
            f"'{records.name}' has class {most}, and the model's classes are 0 to "
            f"{len(index_of) - 1}",
            fix="give class indices in the order of the model's outputs",
        )

    def load(index: int) -> Sample:
        own = classes[index]
        label = index_of[own] if 0 <= own < len(index_of) else UNLABELLED
        if role == "evaluation" and label == UNLABELLED:
            raise Skip("without a label")
        return fit(decode_bytes(records.read(index), preprocess.exif), preprocess), label

    def listing() -> Iterator[str]:
        yield from names
        yield hashlib.sha256(classes.tobytes()).hexdigest()
        yield records.digest()

    return ImageSet(records.name, len(classes), load, decodes=True, strata=classes, listing=listing)

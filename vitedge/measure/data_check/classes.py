"""The classes of a data set beside those of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from vitedge.core.errors import first_few
from vitedge.core.spec import WITH_CLASSES
from vitedge.data.folder import class_indices
from vitedge.data.imageset import UNLABELLED, ImageSet
from vitedge.data.open import Source
from vitedge.measure.data_check import ClassCount, DataFinding
from vitedge.measure.data_check.images import EXAMPLES, Seen
from vitedge.measure.data_check.reader import Reader

IMBALANCE = 10
"""How many times as many images one class may have as another, before that is said."""


def classes_of(
    images: ImageSet, seen: Seen, reader: Reader, folders: Sequence[str]
) -> tuple[ClassCount, ...]:
    counts = seen.shown or Counter(images.strata[i] for i in seen.digests if images.strata)
    names: Mapping[int, str] = dict(enumerate(folders or reader.labels))
    known = {*counts, *range(len(folders))} - {UNLABELLED}
    return tuple(
        ClassCount(name=names.get(index, str(index)), images=counts[index])
        for index in sorted(known)
    )


def of_labels(
    source: Source,
    reader: Reader,
    folders: Sequence[str],
    classes: Sequence[ClassCount],
) -> Iterator[DataFinding]:
    """What is to know of the classes, beside what opening refuses."""
    if folders and reader.labels:
        yield from _of_names(str(source), reader, folders)
    elif classes and reader.model and reader.labels and reader.task in WITH_CLASSES:
        absent = sorted({*reader.labels} - {c.name for c in classes}, key=reader.labels.index)
        yield from _of_absent(absent, len(reader.labels))
    if numeric := [name for name in folders if name.isdecimal()]:
        by_number = sorted(numeric, key=int)
        if len(numeric) == len(folders) and by_number != numeric and reader.labels:
            named = class_indices(str(source), folders, reader.labels, "calibration")
            if any(str(named.get(name)) != name for name in numeric):
                yield DataFinding(
                    severity="warning",
                    what="folders of numbers are taken in the order of text: 1, 10, 2, …",
                    fix="name them as the model's labels, or with leading zeros",
                )
    empty = [c.name for c in classes if not c.images]
    if empty:
        yield DataFinding(
            severity="warning",
            what="classes without a usable image",
            count=len(empty),
            examples=tuple(empty[:EXAMPLES]),
            fix="add images of them, or remove the folders",
        )
    filled = sorted((c for c in classes if c.images), key=lambda c: c.images)
    if filled and filled[-1].images >= IMBALANCE * filled[0].images:
        least, most = filled[0], filled[-1]
        yield DataFinding(
            severity="warning",
            what=f"classes differ in size: '{least.name}' has {least.images} images, "
            f"'{most.name}' {most.images}",
            fix="accuracy over all images is that of the large classes; calibrate with "
            'selection = "stratified"',
        )


def _of_names(path: str, reader: Reader, folders: Sequence[str]) -> Iterator[DataFinding]:
    """Class folders beside the model's labels."""
    named = class_indices(path, folders, reader.labels, "calibration")
    counts = Counter(reader.labels)
    unknown = [name for name in folders if counts[name] != 1]
    if named and unknown:
        yield DataFinding(
            severity="info",
            what=f"the {len(folders)} class folders, in order, are taken for the model's "
            f"{len(reader.labels)} classes",
        )
        return
    if unknown:
        alike = {_plain(label): label for label in reader.labels}
        meant = {name: alike[_plain(name)] for name in unknown if _plain(name) in alike}
        shown = [*(f"{a} → {b}" for a, b in meant.items()), *(n for n in unknown if n not in meant)]
        yield DataFinding(
            severity="error",
            what=f"{len(unknown)} of {len(folders)} class folders name no class of the model",
            count=len(unknown),
            examples=tuple(shown[:EXAMPLES]),
            fix=f"name them as the model's labels ({first_few(reader.labels)}), or take them out",
        )
        return
    absent = [label for label in reader.labels if label not in folders]
    yield from _of_absent(absent, len(reader.labels))


def _of_absent(absent: Sequence[str], count: int) -> Iterator[DataFinding]:
    if absent:
        yield DataFinding(
            severity="warning",
            what=f"classes of the model's {count} that have no images here",
            count=len(absent),
            examples=tuple(absent[:EXAMPLES]),
            fix="accuracy says nothing of them: add images",
        )


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())

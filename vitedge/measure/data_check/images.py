"""What decoding every image, and what the files say of themselves, is worth knowing."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.data import header
from vitedge.data.header import Header
from vitedge.data.imageset import UNLABELLED, ImageSet
from vitedge.data.open import EMBEDDED, Arrays, Source
from vitedge.measure.data_check import DataFinding, Severity
from vitedge.measure.data_check.reader import Reader

EXAMPLES = 5
"""Of what was found, by name."""
SLIVER = 4
"""How many times as long as wide an image may be, before that is said."""
_MENDING = {
    "CMYK": "convert to RGB",
    "transparent": "put them on a background",
    "animated": "save one frame",
    "too large": "make them smaller",
    "too thin": "cut them into pieces",
    "listed and missing": "put them into images/, or take them off the list",
    "of another size than annotated": "annotate them as they are",
    "outside the class folders": "move them into the folder of their class",
}


@dataclass
class Seen:
    """What decoding every image has shown."""

    digests: dict[int, str]
    """Of each usable image, by its place in the set."""
    blank: list[int]
    """Images of one colour all over."""
    shown: Counter[int]
    """Class index -> images that show it, of masks and of boxes."""
    error: InputError | None = None


def look(images: ImageSet, steps: Steps, step: str) -> Seen:
    seen = Seen({}, [], Counter())
    try:
        for batch in images.batches(1):
            index = len(seen.digests) + len(images.unusable)
            seen.digests[index] = batch.digests[0]
            if (batch.images == batch.images[:, :1, :1]).all():
                seen.blank.append(index)
            if batch.labels.ndim == 3:
                seen.shown.update(np.unique(batch.labels[batch.labels != UNLABELLED]).tolist())
            for objects in batch.labels if batch.labels.dtype == object else ():
                seen.shown.update(np.unique(objects.classes).tolist())
            steps(step, index + 1, len(images))
    except InputError as error:
        seen.error = error
    return seen


def name_of(images: ImageSet, index: int) -> str:
    return images.paths[index] if images.paths else f"image {index}"


def examples_of(images: ImageSet, indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(name_of(images, index) for index in indices[:EXAMPLES])


def of_skipped(images: ImageSet) -> Iterator[DataFinding]:
    """One finding for each reason why images are skipped."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for index, reason in sorted(images.unusable.items()):
        reasons[reason].append(index)
    for reason, indices in reasons.items():
        examples = []
        for name in examples_of(images, indices):
            kind = header.content(name) if images.paths and reason not in _MENDING else ""
            examples.append(f"{name} ({kind})" if kind else name)
        yield DataFinding(
            severity="warning",
            what=f"skipped: {reason}",
            count=len(indices),
            examples=tuple(examples),
            fix=_MENDING.get(
                reason, "save them again as 8-bit RGB PNG, JPEG or WebP, or drop them"
            ),
        )


def of_headers(
    images: ImageSet, headers: Mapping[int, Header], reader: Reader
) -> Iterator[DataFinding]:
    """What the files say of themselves."""
    height, width = reader.preprocess.height, reader.preprocess.width
    usable = {i: h for i, h in headers.items() if i not in images.unusable}
    small = [i for i, h in usable.items() if h.width < width or h.height < height]
    groups: tuple[tuple[Severity, str, list[int], str], ...] = (
        (
            "warning",
            f"smaller than the model's input of {height}×{width}: enlarged",
            small if reader.model else [],
            "give images as large as the real ones",
        ),
        (
            "info",
            f"over {SLIVER} times as long as wide: little of them is left",
            [i for i, h in usable.items() if _is_sliver(h)],
            "",
        ),
        (
            "info",
            "turned upright, as their EXIF orientation says"
            if reader.preprocess.exif == "apply"
            else "left as stored: the model's library ignores their EXIF orientation",
            [i for i, h in usable.items() if h.orientation not in (0, 1)],
            "",
        ),
        (
            "info",
            "of 16 bits a channel: the low byte is cut off",
            [i for i, h in usable.items() if "16" in h.mode],
            "",
        ),
    )
    for severity, what, indices, fix in groups:
        if indices:
            yield DataFinding(
                severity=severity,
                what=what,
                count=len(indices),
                examples=examples_of(images, indices),
                fix=fix,
            )


def _is_sliver(known: Header) -> bool:
    return max(known.width, known.height) > SLIVER * min(known.width, known.height)


def of_duplicates(images: ImageSet, seen: Seen) -> Iterator[DataFinding]:
    """Images that are one to a model: equal pixels after resizing and cropping."""
    alike: dict[str, list[int]] = defaultdict(list)
    for index, digest in seen.digests.items():
        alike[digest].append(index)
    groups = [indices for indices in alike.values() if len(indices) > 1]
    strata = images.strata
    torn = [g for g in groups if strata and len({strata[i] for i in g}) > 1]
    copies = [g for g in groups if g not in torn]
    for what, repeated, fix in (
        ("one image in several classes", torn, "keep it in the class it belongs to"),
        ("copies of another image", copies, "keep one of each"),
    ):
        if repeated:
            pairs = [" = ".join(name_of(images, i) for i in indices[:2]) for indices in repeated]
            yield DataFinding(
                severity="warning",
                what=what,
                count=sum(len(indices) - 1 for indices in repeated),
                examples=tuple(pairs[:EXAMPLES]),
                fix=fix,
            )
    if seen.blank:
        yield DataFinding(
            severity="warning",
            what="one colour all over",
            count=len(seen.blank),
            examples=examples_of(images, seen.blank),
            fix="remove them",
        )


def of_files(source: Source, images: ImageSet) -> Iterator[DataFinding]:
    """Files that are not read, and links."""
    if isinstance(source, Arrays) or source in EMBEDDED or not os.path.isdir(source):
        return
    paths = [*header.others(source)]
    hidden = [path for path in paths if os.path.basename(path)[0] == "."]
    shown = [path for path in paths if os.path.basename(path)[0] != "."]
    kinds = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in shown)
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(EXAMPLES))
        yield DataFinding(
            severity="info",
            what=f"other files, not read ({listed})",
            count=sum(kinds.values()),
            examples=tuple(shown[:EXAMPLES]),
            fix="images are read from .png, .jpg, .jpeg and .webp files",
        )
    if hidden:
        yield DataFinding(
            severity="info",
            what="hidden, not read",
            count=len(hidden),
            examples=tuple(hidden[:EXAMPLES]),
        )
    links = [index for index, path in enumerate(images.paths) if os.path.islink(path)]
    if links:
        yield DataFinding(
            severity="info",
            what="links to files elsewhere",
            count=len(links),
            examples=examples_of(images, links),
        )


def of_overlap(
    seen: Seen, images: ImageSet, reader: Reader, against: Source, steps: Steps
) -> Iterator[DataFinding]:
    """Images that are in both sets: what is calibrated on proves nothing."""
    others = reader.open(against, "calibration")
    digests = set(look(others, steps, f"checking {against}").digests.values())
    both = [index for index, digest in seen.digests.items() if digest in digests]
    if both:
        yield DataFinding(
            severity="error",
            what=f"{len(both)} images are in '{against}', too: validation refuses images that "
            "were calibrated on",
            count=len(both),
            examples=examples_of(images, both),
            fix="take them out of one of the two",
        )

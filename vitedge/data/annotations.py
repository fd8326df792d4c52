"""COCO's annotations.json, and whose classes its categories are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import bounded
from vitedge.core.errors import InputError, first_few
from vitedge.core.spec import Count, Positive

LIMIT_BYTES = 2**30
"""Of a file of annotations: COCO's own for training have 0.45 GB."""
Box = tuple[float, float, float, float]


class _Image(msgspec.Struct, frozen=True):
    id: int
    file_name: str
    width: Positive
    height: Positive


class _Category(msgspec.Struct, frozen=True):
    id: int
    name: str


class _Annotation(msgspec.Struct, frozen=True):
    image_id: int
    category_id: int
    bbox: Box
    """Left, top, width and height, pixels."""
    id: int | str = "?"
    area: float | None = None
    iscrowd: Count | bool = 0


class _Coco(msgspec.Struct, frozen=True):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class Drawn(NamedTuple):
    """What is on one image, as `imageset.Objects` has it."""

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    areas: NDArray[np.float32]
    crowds: NDArray[np.bool_]


@dataclass(frozen=True)
class Annotations:
    """What a file says of each image, in its own order."""

    files: tuple[str, ...]
    """Relative to the folder of images."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height, pixels."""
    objects: tuple[Drawn, ...]


def read_annotations(path: str, labels: Sequence[str]) -> Annotations:
    """Read the file at `path` for a model with the classes `labels`; for any, where empty.

    Raises InputError, naming the annotation, for what is not COCO's format, categories that are
    none of the model's classes, and boxes that no object can have.
    """
    content = _read(path)
    images = {image.id: place for place, image in enumerate(content.images)}
    classes = _classes(path, content, labels)
    _check(path, content.annotations, images, classes)
    sizes = tuple((image.width, image.height) for image in content.images)
    by_image: list[list[_Annotation]] = [[] for _ in images]
    for annotation in content.annotations:
        by_image[images[annotation.image_id]].append(annotation)
    of_image = [sizes[images[annotation.image_id]] for annotation in content.annotations]
    names = [_said(annotation) for annotation in content.annotations]
    check_boxes(_stated(content.annotations), of_image, names, path)
    return Annotations(
        tuple(image.file_name for image in content.images),
        sizes,
        tuple(_drawn(drawn, classes) for drawn in by_image),
    )


def categories(path: str) -> tuple[str, ...]:
    """Their names in the order of their ids. Raises InputError as `read_annotations` does."""
    listed = sorted(_read(path).categories, key=lambda category: category.id)
    return tuple(category.name for category in listed)


def _read(path: str) -> _Coco:
    try:
        fix = "put COCO's annotations.json beside images/"
        content = msgspec.json.decode(bounded.read(Path(path), LIMIT_BYTES, fix=fix), type=_Coco)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
        raise InputError(
            f"'{path}' is not as COCO's are: {error}",
            fix="give `images`, `annotations` with `bbox`, and `categories`",
        ) from error
    if not content.images:
        raise InputError(f"'{path}' lists no image", fix="list those of images/")
    for name, ids in (("images", content.images), ("categories", content.categories)):
        twice = [str(key) for key, count in Counter(x.id for x in ids).items() if count > 1]
        if twice:
            raise InputError(
                f"'{path}': {name} share an id: {first_few(twice)}", fix="give each its own"
            )
    return content


def _said(annotation: _Annotation) -> str:
    return f"annotation {annotation.id} of image {annotation.image_id}"


def _check(
    path: str, annotations: Iterable[_Annotation], images: dict[int, int], classes: dict[int, int]
) -> None:
    """Refuse annotations of what is not listed."""
    lists: tuple[tuple[str, Callable[[_Annotation], int], dict[int, int]], ...] = (
        ("image", lambda a: a.image_id, images),
        ("category", lambda a: a.category_id, classes),
    )
    for what, key, known in lists:
        strangers = [_said(a) for a in annotations if key(a) not in known]
        if strangers:
            raise InputError(
                f"'{path}': {len(strangers)} annotations are of no {what} that it lists: "
                f"{first_few(strangers)}",
                fix=f"list the {what}, or remove them",
            )


def _classes(path: str, content: _Coco, labels: Sequence[str]) -> dict[int, int]:
    """Category id -> the model's class. Raises InputError where there is none for one in use."""
    categories = sorted(content.categories, key=lambda category: category.id)
    by_order = {category.id: place for place, category in enumerate(categories)}
    if not labels:
        return by_order
    counts, places = Counter(labels), {name: place for place, name in enumerate(labels)}
    if list(labels) == list(map(str, range(len(labels)))):  # the model has no real names
        if len(categories) == len(labels):
            return by_order
        if all(0 <= category.id < len(labels) for category in categories):
            return {category.id: category.id for category in categories}
        raise InputError(
            f"'{path}' has {len(categories)} categories with ids up to {categories[-1].id}, and "
            f"the model has {len(labels)} classes without names",
            fix="give annotations of as many categories, or name the model's classes",
        )
    named = {c.id: places[c.name] for c in categories if counts[c.name] == 1}
    used = {annotation.category_id for annotation in content.annotations}
    unknown = [c.name for c in categories if c.id in used and c.id not in named]
    if unknown:
        raise InputError(
            f"{len(unknown)} categories of '{path}' are no class of the model: "
            f"{first_few(unknown)}",
            fix=f"name them as the model's labels.txt does ({', '.join(labels[:3])}, …), or remove "
            "their annotations",
        )
    return named


def check_boxes(
    boxes: NDArray[np.float64],
    sizes: Sequence[tuple[int, int]],
    names: Sequence[str],
    path: str,
) -> None:
    """Raise InputError for boxes (g, 4), left, top, width and height, that no object can have.

    `sizes` are the widths and heights of their images, `names` what to call each.
    """
    width, height = np.array(sizes, np.float64).reshape(-1, 2).T
    left, top, across, down = boxes.T
    wrong: dict[str, Any] = {
        "not finite": ~np.isfinite(boxes).all(axis=1),
        "empty or reversed": (across <= 0) | (down <= 0),
        "outside the image": (left >= width)
        | (top >= height)
        | (left + across <= 0)
        | (top + down <= 0),
    }
    for what, which in wrong.items():
        if which.any():
            listed = [
                f"{names[place]} {boxes[place].tolist()}"
                for place in np.flatnonzero(which).tolist()
            ]
            told = "1 box is" if len(listed) == 1 else f"{len(listed)} boxes are"
            raise InputError(
                f"'{path}': {told} {what}: {first_few(listed)}",
                fix="correct or remove them: left, top, width and height in pixels of the image",
            )


def _stated(annotations: Sequence[_Annotation]) -> NDArray[np.float64]:
    """Left, top, width and height, (g, 4)."""
    return np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)


def _drawn(annotations: Sequence[_Annotation], classes: dict[int, int]) -> Drawn:
    boxes = _stated(annotations)
    own = boxes[:, 2] * boxes[:, 3]
    areas = [area if a.area is None else a.area for a, area in zip(annotations, own, strict=True)]
    return Drawn(
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float32),
        np.array([classes[a.category_id] for a in annotations], np.int64),
        np.array(areas, np.float32),
        np.array([bool(a.iscrowd) for a in annotations], bool),
    )

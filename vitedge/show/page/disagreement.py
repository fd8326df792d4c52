"""Which classes moved, and the images on which artifact and FP32 differ most."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitedge.show.page.chart import Axis, hover, legend, linear, strips
from vitedge.show.page.shell import safe
from vitedge.show.page.table import table
from vitedge.show.terminal.tables import DASH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitedge.measure.accuracy.evidence import PerImage

MOST_CLASSES, MOST_MOVES, MOST_BARS = 50, 20, 20
STRIP_PX = 26
EXACT_BYTES = 4096
"""A thumbnail that takes more is written as JPEG."""
TINY_PX = 48
"""Thumbnails up to this are shown with their pixels."""


def confusion(per_image: PerImage, labels: Sequence[str]) -> Iterable[str]:
    """What each class lost and gained, and which choice became which; nothing but for classes.

    `labels` are the classes' names.
    """
    if per_image.fp32 is None or not len(per_image.labels) or per_image.fp32.ndim != 1:
        return
    truth = per_image.labels
    before, after = per_image.fp32.astype(int), per_image.artifact.astype(int)
    moved = np.flatnonzero(before != after)
    lost = (before == truth) & (after != truth)
    gained = (before != truth) & (after == truth)
    yield "<h3>Confusion changes</h3>"
    if not len(moved):
        yield f"<p>Artifact and FP32 choose the same class on all {len(truth):,} images.</p>"
        return
    yield (
        f"<p>The artifact chooses another class than FP32 on {len(moved):,} of {len(truth):,} "
        f"images: of these FP32 had {int(lost.sum()):,} right, and the artifact has "
        f"{int(gained.sum()):,} right.</p>"
    )
    yield from _classes(truth, before, after, labels)
    yield from _moves(truth, before, after, labels)


def _classes(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Iterable[str]:
    classes, place = np.unique(truth, return_inverse=True)
    lost, gained, images, fp32_right, artifact_right = (
        dict(zip(classes.tolist(), np.bincount(place[which], minlength=len(classes)), strict=True))
        for which in (
            (before == truth) & (after != truth),
            (before != truth) & (after == truth),
            np.full(len(truth), True),
            before == truth,
            after == truth,
        )
    )
    order = sorted(classes.tolist(), key=lambda k: (int(gained[k]) - int(lost[k]), -int(lost[k])))
    changed = [k for k in order if lost[k] + gained[k]]
    if not changed:
        return
    yield from _bars([(_name(k, labels), lost[k], gained[k]) for k in changed[:MOST_BARS]])

    def instead(k: int) -> str:
        chosen = Counter(after[(truth == k) & (before == k) & (after != k)].tolist())
        return ", ".join(f"{_name(c, labels)} ×{n}" for c, n in chosen.most_common(3)) or DASH

    rows = [
        (
            *(_name(k, labels), f"{images[k]:,}", f"{fp32_right[k]:,}", f"{artifact_right[k]:,}"),
            *(f"{lost[k]:,}", f"{gained[k]:,}", instead(k)),
        )
        for k in changed[:MOST_CLASSES]
    ]
    yield from table(
        "Classes that moved",
        {
            **{"class": "head", "images": "number", "FP32 right": "number"},
            **{"artifact right": "number", "lost": "number", "gained": "number"},
            "chosen instead": "text",
        },
        rows,
    )
    if len(changed) > MOST_CLASSES:
        yield f'<p class="soft">{len(changed) - MOST_CLASSES:,} more classes changed less.</p>'


def _bars(changed: Sequence[tuple[str, int, int]]) -> Iterable[str]:
    most = max(max(lost, gained) for _, lost, gained in changed)
    x = linear("images lost (left) and gained (right)", [-float(most), float(most)])
    x = Axis(x.title, x.low * 1.6, x.high, _whole(x.ticks))
    label = f"Images lost and gained by {len(changed)} classes; the table below has every value"
    frame = strips(x, len(changed), "", label, STRIP_PX)
    marks = []
    for strip, (name, lost, gained) in enumerate(reversed(changed)):
        heights = (strip + 0.2, strip + 0.8)
        drawn = [frame.bar((-lost, 0), heights, "bar c1")] if lost else []
        drawn += [frame.bar((0, gained), heights, "bar c0")] if gained else []
        drawn.append(frame.text(x.low, strip + 0.5, _cut(name), shift=(4, 5)))
        marks.append(hover(f"{name}: {lost:,} lost, {gained:,} gained", *drawn))
    yield legend(
        [
            ('<path class="bar c1" d="M2 3h26v11h-26Z"/>', "right before, wrong now"),
            ('<path class="bar c0" d="M2 3h26v11h-26Z"/>', "wrong before, right now"),
        ]
    )
    yield from frame.svg(marks)


def _whole(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Numbers of images: whole, and without a sign."""
    return tuple((at, f"{abs(at):,.0f}") for at, _ in ticks if at == round(at))


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _moves(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Iterable[str]:
    which = np.flatnonzero(before != after)
    moves = Counter(zip(before[which].tolist(), after[which].tolist(), strict=True))
    right = Counter(
        (b, a)
        for b, a, w in zip(*(x[which].tolist() for x in (before, after, truth)), strict=True)
        if b == w
    )
    rows = [
        (_name(b, labels), _name(a, labels), f"{n:,}", f"{right[b, a]:,}")
        for (b, a), n in moves.most_common(MOST_MOVES)
    ]
    yield from table(
        "Choices that changed",
        {
            **{"FP32 chose": "head", "artifact chooses": "", "images": "number"},
            "FP32 was right": "number",
        },
        rows,
    )
    if len(moves) > MOST_MOVES:
        yield f'<p class="soft">{len(moves) - MOST_MOVES:,} more kinds of change are rarer.</p>'


def thumbnails(per_image: PerImage, labels: Sequence[str]) -> Iterable[str]:
    """The worst disagreeing images, worst first; nothing where all agree."""
    if not len(per_image.worst):
        return
    yield "<h3>Worst disagreeing images</h3>"
    yield '<ul class="images">'
    for place, image in zip(per_image.worst.tolist(), per_image.thumbnails, strict=True):
        caption = f"image {place + 1:,}{_chosen(per_image, place, labels)}"
        tiny = ' class="tiny"' if max(image.shape[:2]) <= TINY_PX else ""
        size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
        yield (
            f'<li><figure><img{tiny} {size} alt="{safe(caption)}" src="{_data_uri(image)}">'
            f"<figcaption>{safe(caption)}</figcaption></figure></li>"
        )
    yield "</ul>"


def _chosen(per_image: PerImage, place: int, labels: Sequence[str]) -> str:
    if not len(per_image.labels) or per_image.fp32 is None or per_image.fp32.ndim != 1:
        return ""
    choices = per_image.labels, per_image.fp32, per_image.artifact
    label, before, after = (_name(int(part[place]), labels) for part in choices)
    return f": labelled {label}, FP32 chose {before}, artifact {after}"


def _name(index: int, labels: Sequence[str]) -> str:
    return labels[index] if 0 <= index < len(labels) else f"class {index}"


def _data_uri(image: NDArray[np.uint8]) -> str:
    """The image (h, w, 3) inside its own address."""
    from PIL import Image

    def written(form: str, **options: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, form, **options)
        return file.getvalue()

    kind, data = "png", written("PNG")
    if len(data) > EXACT_BYTES:
        kind, data = "jpeg", written("JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

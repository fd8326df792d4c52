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


def confusion(found: PerImage, labels: Sequence[str]) -> Iterable[str]:
    """What each class lost and gained, and which choice became which; nothing but for classes.

    `labels` are the classes' names.
    """
    if found.fp32 is None or not len(found.labels) or found.fp32.ndim != 1:
        return
    wanted, before, after = found.labels, found.fp32.astype(int), found.artifact.astype(int)
    moved = np.flatnonzero(before != after)
    lost = (before == wanted) & (after != wanted)
    gained = (before != wanted) & (after == wanted)
    yield "<h3>Confusion changes</h3>"
    if not len(moved):
        yield f"<p>Artifact and FP32 choose the same class on all {len(wanted):,} images.</p>"
        return
    yield (
        f"<p>The artifact chooses another class than FP32 on {len(moved):,} of {len(wanted):,} "
        f"images: of these FP32 had {int(lost.sum()):,} right, and the artifact has "
        f"{int(gained.sum()):,} right.</p>"
    )
    yield from _classes(wanted, before, after, labels)
    yield from _moves(wanted, before, after, labels)


def _classes(
    wanted: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Iterable[str]:
    classes, place = np.unique(wanted, return_inverse=True)
    lost, gained, images, right, still = (
        dict(zip(classes.tolist(), np.bincount(place[which], minlength=len(classes)), strict=True))
        for which in (
            (before == wanted) & (after != wanted),
            (before != wanted) & (after == wanted),
            np.full(len(wanted), True),
            before == wanted,
            after == wanted,
        )
    )
    order = sorted(classes.tolist(), key=lambda k: (int(gained[k]) - int(lost[k]), -int(lost[k])))
    changed = [k for k in order if lost[k] + gained[k]]
    if not changed:
        return
    yield from _bars([(_name(k, labels), lost[k], gained[k]) for k in changed[:MOST_BARS]])

    def instead(k: int) -> str:
        chosen = Counter(after[(wanted == k) & (before == k) & (after != k)].tolist())
        return ", ".join(f"{_name(c, labels)} ×{n}" for c, n in chosen.most_common(3)) or DASH

    rows = [
        (
            *(_name(k, labels), f"{images[k]:,}", f"{right[k]:,}", f"{still[k]:,}"),
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
    wanted: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Iterable[str]:
    which = np.flatnonzero(before != after)
    found = Counter(zip(before[which].tolist(), after[which].tolist(), strict=True))
    right = Counter(
        (b, a)
        for b, a, w in zip(*(x[which].tolist() for x in (before, after, wanted)), strict=True)
        if b == w
    )
    rows = [
        (_name(b, labels), _name(a, labels), f"{n:,}", f"{right[b, a]:,}")
        for (b, a), n in found.most_common(MOST_MOVES)
    ]
    yield from table(
        "Choices that changed",
        {
            **{"FP32 chose": "head", "artifact chooses": "", "images": "number"},
            "FP32 was right": "number",
        },
        rows,
    )
    if len(found) > MOST_MOVES:
        yield f'<p class="soft">{len(found) - MOST_MOVES:,} more kinds of change are rarer.</p>'


def thumbnails(found: PerImage, labels: Sequence[str]) -> Iterable[str]:
    """The worst disagreeing images, worst first; nothing where all agree."""
    if not len(found.worst):
        return
    yield "<h3>Worst disagreeing images</h3>"
    yield '<ul class="images">'
    for place, image in zip(found.worst.tolist(), found.thumbnails, strict=True):
        said = f"image {place + 1:,}{_chosen(found, place, labels)}"
        tiny = ' class="tiny"' if max(image.shape[:2]) <= TINY_PX else ""
        size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
        yield (
            f'<li><figure><img{tiny} {size} alt="{safe(said)}" src="{_data_uri(image)}">'
            f"<figcaption>{safe(said)}</figcaption></figure></li>"
        )
    yield "</ul>"


def _chosen(found: PerImage, place: int, labels: Sequence[str]) -> str:
    if not len(found.labels) or found.fp32 is None or found.fp32.ndim != 1:
        return ""
    label, before, after = (
        _name(int(part[place]), labels) for part in (found.labels, found.fp32, found.artifact)
    )
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

"""Which classes moved, and the images on which artifact and FP32 differ most."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from vitedge.show.page import boxes
from vitedge.show.page.chart import Chart, key, linear, strips
from vitedge.show.table import Table, Value, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitedge.measure.accuracy.evidence import PerImage

MOST_CLASSES, MOST_MOVES, MOST_BARS = 50, 20, 20
STRIP_PX = 26
EXACT_BYTES = 4096
"""A thumbnail that takes more is written as JPEG."""
TINY_PX = 48
"""Thumbnails up to this are shown with their pixels."""
LEGEND = ((key("bar c1"), "right before, wrong now"), (key("bar c0"), "wrong before, right now"))
COUNTS = ("images", "FP32 right", "artifact right", "lost", "gained")
CLASSES = listed(head=("class",), number=COUNTS, text=("chosen instead",))
MOVES = listed(head=("FP32 chose",), text=("artifact chooses",), number=("images", "FP32 right"))

Rows = list[tuple[Any, ...]]
Shown = tuple[Table[Sequence[Value]], str]
"""The first rows of a table, and how many it leaves out; empty where none."""


@dataclass(frozen=True)
class Confusion:
    """How the choices of a classifier changed."""

    summary: str
    chart: Chart | None = None
    tables: tuple[Shown, ...] = ()


def confusion(per_image: PerImage, labels: Sequence[str]) -> Confusion | None:
    """What each class lost and gained, and which choice became which; None but for classes.

    `labels` are the classes' names.
    """
    if per_image.fp32 is None or not len(per_image.labels) or per_image.fp32.ndim != 1:
        return None
    truth = per_image.labels
    before, after = per_image.fp32.astype(int), per_image.artifact.astype(int)
    moved = before != after
    if not moved.any():
        return Confusion(f"Artifact and FP32 choose the same class on all {len(truth):,} images.")
    classes = _classes(truth, before, after, labels)
    moves = _moves(truth[moved], before[moved], after[moved], labels)
    by_class = Table("Classes that moved", CLASSES, classes)
    by_choice = Table("Choices that changed", MOVES, moves)
    return Confusion(
        f"The artifact chooses another class than FP32 on {moved.sum():,} of {len(truth):,} "
        f"images: of these FP32 had {(moved & (before == truth)).sum():,} right, and the artifact "
        f"has {(moved & (after == truth)).sum():,} right.",
        _bars(classes[:MOST_BARS]) if classes else None,
        (
            _first(MOST_CLASSES, by_class, "classes changed less"),
            _first(MOST_MOVES, by_choice, "kinds of change are rarer"),
        ),
    )


def _first(most: int, table: Table[Sequence[Value]], what: str) -> Shown:
    more = len(table.rows) - most
    return replace(table, rows=table.rows[:most]), f"{more:,} more {what}." if more > 0 else ""


def _classes(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Rows:
    """The classes that lost or gained images, those that lost most first."""
    classes, place = np.unique(truth, return_inverse=True)
    lost, gained = (before == truth) & (after != truth), (before != truth) & (after == truth)
    groups = (np.full(len(truth), True), before == truth, after == truth, lost, gained)
    counts = [np.bincount(place[group], minlength=len(classes)).tolist() for group in groups]
    rows = []
    for index, *figures in zip(classes.tolist(), *counts, strict=True):
        if figures[3] + figures[4]:
            chosen = Counter(after[(truth == index) & lost].tolist()).most_common(3)
            instead = ", ".join(f"{_name(c, labels)} ×{n}" for c, n in chosen)
            rows.append((_name(index, labels), *figures, instead or None))
    return sorted(rows, key=lambda row: (row[5] - row[4], -row[4]))


def _bars(classes: Rows) -> Chart:
    most = float(max(max(lost, gained) for *_, lost, gained, _ in classes))
    axis = linear("images lost (left) and gained (right)", [-most, most])
    whole = [(at, f"{abs(at):,.0f}") for at, _ in axis.ticks if at == round(at)]
    axis = replace(axis, low=axis.low * 1.6, ticks=whole)
    label = f"Images lost and gained by {len(classes)} classes; the table below has every value"
    chart = strips(axis, len(classes), label, STRIP_PX, LEGEND)
    for strip, (name, *_, lost, gained, _) in enumerate(reversed(classes)):
        heights, short = (strip + 0.2, strip + 0.8), name if len(name) <= 24 else f"{name[:23]}…"
        bars = [chart.bar((-lost, 0), heights, "bar c1")] if lost else []
        bars += [chart.bar((0, gained), heights, "bar c0")] if gained else []
        text = chart.text(axis.low, strip + 0.5, short, shift=(4, 5))
        chart.draw(*bars, text, title=f"{name}: {lost:,} lost, {gained:,} gained")
    return chart


def _moves(
    truth: NDArray[Any], before: NDArray[Any], after: NDArray[Any], labels: Sequence[str]
) -> Rows:
    """The changes of choice, the most frequent first."""
    pairs = [*zip(before.tolist(), after.tolist(), strict=True)]
    right = Counter(
        pair for pair, label in zip(pairs, truth.tolist(), strict=True) if pair[0] == label
    )
    counts = Counter(pairs).most_common()
    return [(*(_name(c, labels) for c in pair), n, right[pair]) for pair, n in counts]


def thumbnails(per_image: PerImage, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The worst disagreeing images, worst first, as their template takes them."""
    drawn = [boxes.overlay(per_image, number, labels) for number in range(len(per_image.worst))]
    return [
        {
            "caption": f"image {place + 1:,}"
            f"{overlay.get('said') or _chosen(per_image, place, labels)}",
            "frames": overlay.get("frames"),
            "height": image.shape[0],
            "width": image.shape[1],
            "tiny": max(image.shape[:2]) <= TINY_PX,
            "uri": _data_uri(image),
        }
        for place, image, overlay in zip(
            per_image.worst.tolist(), per_image.thumbnails, drawn, strict=True
        )
    ]


def _chosen(per_image: PerImage, place: int, labels: Sequence[str]) -> str:
    if not len(per_image.labels) or per_image.fp32 is None or per_image.fp32.ndim != 1:
        return ""
    choices = per_image.labels, per_image.fp32, per_image.artifact
    label, before, after = (_name(int(part[place]), labels) for part in choices)
    return f": labelled {label}, FP32 chose {before}, artifact {after}"


def _name(index: int, labels: Sequence[str]) -> str:
    return labels[index] if 0 <= index < len(labels) else f"class {index}"


def _data_uri(image: NDArray[np.uint8]) -> Markup:
    """The image (h, w, 3) inside its own address."""
    from PIL import Image

    kind, file = "png", io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    if file.tell() > EXACT_BYTES:
        kind, file = "jpeg", io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=85)
    return Markup(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}")

"""The picture of a training: loss of every step, and of the images that were kept apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vitedge.core.manifest import Trained
from vitedge.show.page.chart import Axis, Frame, hover
from vitedge.show.page.report import number
from vitedge.show.page.table import table

_TINY = 1e-12
"""Stands for a loss of zero, which a logarithmic axis has no place for."""


def section(training: Trained) -> Iterable[str]:
    """HTML of the curve, on a logarithmic axis, and every look at the held-out images."""
    frame = _frame(training)
    yield "<section><h2>Training</h2>"
    yield (
        '<p class="soft">Loss of each step (line) and of the images held out (triangles); lower '
        "is better.</p>"
    )
    marks = [frame.line(training.curve, "line c0")]
    for look in training.looks:
        right = "" if look.accuracy is None else f", {look.accuracy:.2%} right"
        title = f"step {look.step}: held-out loss {look.loss:.4g}{right}"
        marks.append(hover(title, frame.triangle(look.step, look.loss, "own-dot")))
    yield from frame.svg(marks)
    scored = training.looks[0].accuracy is not None  # features are right or wrong about nothing
    columns = ("step", "held-out loss", *(["right %"] if scored else []))
    rows = [
        (f"{look.step}", f"{look.loss:.4g}", *([number(look.accuracy, ".2f", 0.01)] * scored))
        for look in training.looks
    ]
    yield from table("Looks at the held-out images", dict.fromkeys(columns, "number"), rows)
    yield "</section>"


def _frame(training: Trained) -> Frame:
    values = [loss for _, loss in training.curve] + [look.loss for look in training.looks]
    logs = [math.log10(max(value, _TINY)) for value in values]
    low = math.floor(min(logs))
    high = max(math.ceil(max(logs)), low + 1)
    last = max(training.steps, 1)
    steps = [round(last * eighth / 8) for eighth in range(9)]
    return Frame(
        Axis("step", 0, last, tuple((step, f"{step}") for step in steps)),
        Axis(
            "loss",
            10.0**low,
            10.0**high,
            tuple((10.0**p, f"1e{p}") for p in range(low, high + 1)),
            True,
        ),
        f"Loss over {training.steps} steps; the table below has every look at the held-out images",
        height=320,
    )

"""An inspection as one HTML page: error against depth, training, and every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vitedge.core.manifest import HeldOut, Trained
from vitedge.show.page.chart import TINY, Axis, Chart, key, symbol
from vitedge.show.page.shell import render as render_template
from vitedge.show.table import Column, Table
from vitedge.show.terminal import inspection as sentences
from vitedge.show.text import number

if TYPE_CHECKING:
    from vitedge.measure.inspection import Inspection, Row

TRIANGLE = 1
LEGEND = (
    (key("line c0") + symbol("dot c0"), "so far: quantized graph against FP32"),
    (symbol("ring c0"), "likewise, layer in float"),
    (symbol("own-dot", TRIANGLE), "own: this layer's rounding alone"),
)
_Look = Column[HeldOut]
LOOKS = (
    _Look("step", "step", "", lambda look: look.step),
    _Look("loss", "held-out loss", "", lambda look: look.loss, ".4g"),
    _Look("accuracy", "right", "%", lambda look: look.accuracy, ".2f"),
)


def render(inspection: Inspection) -> str:
    """The whole page."""
    eight_bit = inspection.number_format.upper()
    return render_template(
        "inspection.html",
        inspection=inspection,
        title=f"{inspection.name}: what {'it is' if inspection.model else f'{eight_bit} costs'}",
        facts=sentences.facts(inspection.model) if inspection.model else None,
        missing=list(sentences.missing(inspection)),
        summary=sentences.summary(inspection),
        depth=depth(inspection.layers, "the table below has every value"),
        training=training(inspection.training) if inspection.training else None,
        tables=sentences.contents(inspection),
        lint=sentences.verdict(inspection),
    )


def depth(rows: Sequence[Row], elsewhere: str) -> Chart | None:
    """Own and accumulated SQNR of `rows`, in graph order: where the signal is lost on its way
    through the graph. None where neither was measured; `elsewhere` has the values in writing.
    """
    values = [v for row in rows for v in (row.sqnr_db, row.accumulated_sqnr_db) if v is not None]
    if not values:
        return None
    low = 10 * math.floor(min(values) / 10)
    high = max(10 * math.ceil(max(values) / 10), low + 10)
    decibels = range(low, high + 1, 10 * math.ceil((high - low) / 80))
    depths = range(1, len(rows) + 1, max(1, math.ceil(len(rows) / 12)))
    chart = Chart(
        Axis("layer, in graph order", 0.5, len(rows) + 0.5, [(d, f"{d}") for d in depths]),
        Axis("SQNR, dB", low, high, [(t, f"{t}") for t in decibels]),
        f"SQNR in decibels of {len(rows)} layers against depth; {elsewhere}",
        LEGEND,
    )
    so_far = [(row.depth, row.accumulated_sqnr_db) for row in rows]
    chart.draw(chart.line(((x, y) for x, y in so_far if y is not None), "line c0"))
    for row in rows:
        marks = [chart.bar((row.depth - 0.5, row.depth + 0.5), (low, high), "hit")]
        own, reached = "float", "exact so far"
        if row.accumulated_sqnr_db is not None:
            css = "dot c0" if row.quantized else "ring c0"
            marks.append(chart.mark(row.depth, row.accumulated_sqnr_db, css))
            reached = f"so far {number(row.accumulated_sqnr_db, '.1f')} dB"
        if row.sqnr_db is not None:
            marks.append(chart.mark(row.depth, row.sqnr_db, "own-dot", TRIANGLE))
            own = f"own {number(row.sqnr_db, '.1f')} dB"
        chart.draw(*marks, title=f"{row.depth}. {row.node}: {own}, {reached}")
    return chart


def training(trained: Trained) -> tuple[Chart, Table[HeldOut]]:
    """Loss of every step, on a logarithmic axis, and every look at the held-out images."""
    values = [loss for _, loss in trained.curve] + [look.loss for look in trained.looks]
    logs = [math.log10(max(value, TINY)) for value in values]
    low = math.floor(min(logs))
    powers = range(low, max(math.ceil(max(logs)), low + 1) + 1)
    last = max(trained.steps, 1)
    steps = [round(last * eighth / 8) for eighth in range(9)]
    chart = Chart(
        Axis("step", 0, last, [(step, f"{step}") for step in steps]),
        Axis("loss", 10.0**low, 10.0 ** powers[-1], [(10.0**p, f"1e{p}") for p in powers], True),
        f"Loss over {trained.steps} steps; the table below has every look at the held-out images",
        height=320,
    )
    chart.draw(chart.line(trained.curve, "line c0"))
    for look in trained.looks:
        right = "" if look.accuracy is None else f", {number(100 * look.accuracy, '.2f')}% right"
        title = f"step {look.step}: held-out loss {number(look.loss, '.4g')}{right}"
        chart.draw(chart.mark(look.step, look.loss, "own-dot", TRIANGLE), title=title)
    return chart, Table("Looks at the held-out images", LOOKS, trained.looks)

"""Error against depth: where on its way through the graph the signal is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vitedge.show.page.chart import Axis, Frame, hover, legend

if TYPE_CHECKING:
    from vitedge.measure.inspection import Row

_SO_FAR = '<path class="line c0" d="M0 8H30"/><circle class="dot c0" cx="15" cy="8" r="5"/>'
_LEGEND = (
    (_SO_FAR, "so far: INT8 graph against FP32"),
    ('<circle class="ring c0" cx="15" cy="8" r="5"/>', "likewise, layer in float"),
    ('<path class="own-dot" d="M15 2 22 14 8 14Z"/>', "own: this layer's rounding alone"),
)


def picture(rows: Sequence[Row], elsewhere: str) -> Iterable[str]:
    """Own and accumulated SQNR of `rows`, in graph order; nothing where neither was measured.

    `elsewhere` says where the values are in writing.
    """
    values = [v for row in rows for v in (row.sqnr_db, row.accumulated_sqnr_db) if v is not None]
    if not values:
        return
    frame = _frame(values, len(rows), elsewhere)
    yield '<p class="soft">Signal to noise of each layer\'s output; higher is better.</p>'
    yield legend(_LEGEND)
    so_far = [(row.depth, row.accumulated_sqnr_db) for row in rows]
    line = frame.line(((x, y) for x, y in so_far if y is not None), "line c0")
    yield from frame.svg([line, *(_layer(frame, row) for row in rows)])


def _frame(values: Sequence[float], count: int, elsewhere: str) -> Frame:
    low = 10 * math.floor(min(values) / 10)
    high = max(10 * math.ceil(max(values) / 10), low + 10)
    step = 10 * math.ceil((high - low) / 80)
    depths = range(1, count + 1, max(1, math.ceil(count / 12)))
    return Frame(
        Axis("layer, in graph order", 0.5, count + 0.5, tuple((d, f"{d}") for d in depths)),
        Axis("SQNR, dB", low, high, tuple((t, f"{t}") for t in range(low, high + 1, step))),
        f"SQNR in decibels of {count} layers against depth; {elsewhere}",
    )


def _layer(frame: Frame, row: Row) -> str:
    marks = [frame.column(row.depth - 0.5, row.depth + 0.5)]
    if row.accumulated_sqnr_db is not None:
        css = "dot c0" if row.quantized else "ring c0"
        marks.append(frame.dot(row.depth, row.accumulated_sqnr_db, css))
    if row.sqnr_db is not None:
        marks.append(frame.triangle(row.depth, row.sqnr_db, "own-dot"))
    own = "float" if row.sqnr_db is None else f"own {row.sqnr_db:.1f} dB"
    reached = row.accumulated_sqnr_db
    so_far = "exact so far" if reached is None else f"so far {reached:.1f} dB"
    return hover(f"{row.depth}. {row.node}: {own}, {so_far}", *marks)

"""Pictures the size of a word, for tables in Markdown and on terminals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitedge.gate.verdict import Check
from vitedge.show.ci import figures

BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 24
HALF = 6
"""Columns of a ruler on each side of the limit."""


def ruler(check: Check) -> str:
    """Show the interval and the value around the limit, which stands in the middle."""
    value, ends = figures.finite(check), check.interval or ()
    if value is None:
        return ""
    finite = [x for x in (value, *ends) if math.isfinite(x)]
    reach = max(abs(x - check.limit) for x in finite) or 1.0

    def column(x: float) -> int:
        share = (x - check.limit) / reach
        return HALF + round(HALF * min(max(share, -1.0), 1.0))

    cells = ["·"] * (2 * HALF + 1)
    if ends:
        for at in range(column(ends[0]), column(ends[1]) + 1):
            cells[at] = "━"
    cells[HALF] = "╋" if cells[HALF] == "━" else "┃"
    cells[column(value)] = "●"
    return "".join(cells)


def sparkline(values: Sequence[float | None]) -> str:
    """One bar for each of the last values, from the lowest to the highest; a dot for None."""
    values = values[-MOST_BARS:]
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    low, span = min(numbers), max(numbers) - min(numbers)
    return "".join(
        "·" if value is None else BARS[round((len(BARS) - 1) * (value - low) / span) if span else 3]
        for value in values
    )

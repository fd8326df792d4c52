"""A picture the size of a word, for tables in Markdown and on terminals."""

from __future__ import annotations

import math

from vitedge.gate.verdict import Check
from vitedge.show.ci import figures

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

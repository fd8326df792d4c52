"""Two artifacts side by side, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vitedge.gate.compare import ArtifactComparison, Side
from vitedge.show.columns import DROP, METRIC, P50, SIDES, SPEEDUP
from vitedge.show.table import TERMINAL, Column, Table
from vitedge.show.terminal.tables import grid
from vitedge.show.text import number

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Figure = Column[Side]


def comparison(comparison: ArtifactComparison) -> RichTable:
    """One row for each measure: of the first, of the second, and the second against the first."""
    first, second = comparison.sides
    changes = {}
    if accuracy := comparison.accuracy:
        drop, *ends = (number(v, DROP.format) for v in (accuracy.drop_pp, *accuracy.drop_ci_pp))
        changes[METRIC.key] = f"{drop} pp lost ({' to '.join(ends)})"
    if latency := comparison.latency:
        values = (latency.speedup, *(latency.speedup_ci or ()))
        speedup, *ends = (number(value, SPEEDUP.format) for value in values)
        interval = f" ({' to '.join(ends)})" if ends else ""
        changes[P50.key] = f"{speedup}× as fast{interval}"
    interval = f"{number(100 * comparison.confidence, '.6g')}% interval"
    columns = (
        Column[Figure]("measure", "", "", lambda f: f"{f.title}, {f.unit}", kind="word"),
        Column[Figure]("first", first.artifact, "", lambda f: f.cell(first, TERMINAL)),
        Column[Figure]("second", second.artifact, "", lambda f: f.cell(second, TERMINAL)),
        Column[Figure]("change", interval, "", lambda f: changes.get(f.key, "")),
    )
    shown = [
        f for f in SIDES if not f.sparse or any(f.of(side) is not None for side in (first, second))
    ]
    return grid(Table(comparison.model, columns, shown, keeps_empty=True), padding=1)


def remarks(comparison: ArtifactComparison) -> Iterator[str]:
    """How the numbers were paired, or why not."""
    if accuracy := comparison.accuracy:
        agree = ""
        if accuracy.agreement is not None:
            agree = f", the same class on {number(100 * accuracy.agreement, '.2f')}%"
        yield f"accuracy: on the same {accuracy.n:,} images{agree}"
    if comparison.latency:
        yield f"latency: {comparison.latency.how}"
    yield from comparison.notes

"""A gate's verdict for people: a table of checks, and a line for each that did not pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vitedge.gate.verdict import Verdict
from vitedge.show import checks
from vitedge.show.table import Table
from vitedge.show.terminal.tables import grid
from vitedge.show.text import number, one_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def verdict(verdict: Verdict) -> RichTable:
    """One row for each check, in the order of the artifacts, which are named once."""
    bounds = f"{number(100 * verdict.confidence, '.6g')}% bounds"
    columns = [
        replace(column, title=bounds) if column.key == "interval" else column
        for column in checks.COLUMNS
    ]
    rows = checks.rows(verdict)
    names = ["", *(row.name for row in rows)]
    once = [
        replace(row, name="") if row.name == before else row
        for row, before in zip(rows, names, strict=False)
    ]
    return grid(Table("", columns, once, keeps_empty=True), padding=1)


def reasons(verdict: Verdict) -> Iterator[str]:
    """Why not, for each check that did not pass; whether reports are signed; then the answer."""
    for row in checks.rows(verdict):
        if row.check.answer != "passed":
            yield f"{row.name}, {row.label}: {one_line(row.check.reason)}"
    yield from checks.signatures(verdict)
    yield f"gate: {verdict.answer}"

"""A gate's verdict for people: a table of checks, and a line for each that did not pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vitedge.gate.verdict import Check, Verdict
from vitedge.show.ci import figures
from vitedge.show.ci.ruler import ruler

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {"passed": "green", "failed": "bold red", "inconclusive": "yellow"}


def verdict(verdict: Verdict) -> Table:
    """One row for each check, in the order of the artifacts."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("artifact", overflow="fold", min_width=16)
    table.add_column("check")
    for column in ("measured", f"{100 * verdict.confidence:g}% bounds", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("limit at ┃", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    for name, judged in zip(figures.names(verdict), verdict.judged, strict=True):
        for at, check in enumerate(judged.checks):
            answer = Text(check.answer, style=STYLES[check.answer])
            table.add_row("" if at else name, *_cells(check), answer)
    return table


def reasons(verdict: Verdict) -> Iterator[str]:
    """Why not, for each check that did not pass; then the answer."""
    for name, judged in zip(figures.names(verdict), verdict.judged, strict=True):
        for check in judged.checks:
            if check.answer != "passed":
                yield f"{name}, {figures.label(check.metric)}: {figures.one_line(check.reason)}"
    yield f"gate: {verdict.answer}"


def _cells(check: Check) -> tuple[str, ...]:
    metric, value, ends = check.metric, figures.measured(check), check.interval
    return (
        figures.label(metric),
        "–" if value is None else figures.quantity(metric, value),
        "…".join(figures.amount(metric, end) for end in ends) if ends else "",
        f"{'≤' if check.bound == 'max' else '≥'} {figures.quantity(metric, check.limit)}",
        ruler(check),
    )

"""Measurements as tables for people; JSON has the same numbers for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vitedge.core.commands import command
from vitedge.core.terminal import printable, shortened
from vitedge.show import report_tables
from vitedge.show.table import TERMINAL, Row, Table, listed
from vitedge.show.text import number, one_line
from vitedge.show.text import plain as plain

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from vitedge.core.report import Parity, Report
    from vitedge.export.demo import Demo
    from vitedge.export.result import Exports

ANSWERS = {"passed": "green", "failed": "bold red", "inconclusive": "yellow"}


def show(table: RichTable) -> None:
    """Print a table on stdout, as wide as the terminal; unfolded where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)


def listing(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    """A plain list of texts, one row each."""
    columns = listed(text=titles)
    return grid(Table("", columns, list(rows), keeps_empty=True), lined=False, padding=1)


def grid(table: Table[Row], *, lined: bool = True, padding: int = 0) -> RichTable:
    """A table as rich draws it; with a line under its head, or on one line and bold."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD if lined else None,
        padding=(0, padding),
        pad_edge=False,
        header_style="table.header" if lined else "bold",
    )
    columns, lines = table.layout(TERMINAL)
    for column in columns:
        heading, kind = column.heading(TERMINAL), column.kind
        drawn.add_column(
            heading if lined else " ".join(heading.split()),
            overflow="fold" if kind == "head" else "ellipsis",
            min_width=16 if kind == "head" else None,
            justify="right" if kind in ("number", "interval") else "left",
            no_wrap=kind in ("number", "interval", "code", "answer"),
        )
    for line in lines:
        cells = zip(map(shortened, map(printable, line)), columns, strict=True)
        drawn.add_row(*(Text(t, ANSWERS[t] if c.kind == "answer" else "") for t, c in cells))
    return drawn


def reports(measured: Sequence[Report], title: str) -> RichTable:
    """One row for each report, of what it holds."""
    return grid(report_tables.proof(measured, title))


def exports(exported: Exports, title: str, reasons: Mapping[str, str]) -> RichTable:
    """One row for each artifact of an export; those not written with their `reasons`, by name."""
    from vitedge.core.report import SCHEMA, Report

    unwritten = [
        Report(
            schema=SCHEMA,
            artifact=failure.artifact,
            model=failure.model,
            target=failure.target,
            precision=failure.precision,
            files={},
        )
        for failure in exported.failures
    ]
    shown = {name: one_line(reason.removeprefix(f"{name}: ")) for name, reason in reasons.items()}
    rows = [*(result.report for result in exported), *unwritten]
    targets = list(dict.fromkeys(row.target for row in rows))
    rows.sort(key=lambda row: targets.index(row.target))
    return grid(report_tables.proof(rows, title, shown))


def show_outputs(measured: Sequence[Report]) -> None:
    """Print one row for each output, of artifacts that have several."""
    table = report_tables.outputs(measured, "each output against FP32's")
    if table.rows:
        show(grid(table))


def demo(result: Demo) -> RichTable:
    """The demo's table: PyTorch first, then FP32 and INT8 of each runtime."""
    first, timing = result.reports[0], msgspec.structs.asdict(result.torch_latency)
    eager = msgspec.structs.replace(
        first,
        artifact="PyTorch eager FP32",
        precision="fp32",
        accuracy=result.torch_accuracy,
        size=None,
        memory=None,
        latency=first.latency and msgspec.structs.replace(first.latency, speedup=None, **timing),
    )
    title = f"{result.model}: accuracy on held-out images, latency in turn"
    return reports([eager, *result.reports], title)


def parity(section: Parity) -> str:
    """Parity on the golden images, one line."""
    if section.broken or section.numerics is None:
        return f"NO PARITY on {section.n} golden images: {section.broken}"
    error, before = section.numerics, section.at_export_db
    line = f"parity with FP32 on {section.n} golden images, which is no accuracy: "
    line += "equal" if error.sqnr_db is None else f"{number(error.sqnr_db, '.1f')} dB SQNR"
    line += "" if before is None else f" ({number(before, '.1f')} at export)"
    if error.worst_token_db is not None:
        line += f", {number(error.worst_token_db, '.1f')} in its worst token or pixel"
    line += f", max error {number(error.max_abs_error, '.2g')}"
    if error.kept_queries is not None:
        line += f", {number(100 * error.kept_queries, '.0f')}% of FP32's queries"
    if section.agreement is not None:
        line += f", {number(100 * section.agreement, '.0f')}% choose the same"
    return line


def recommendations(measured: Sequence[Report]) -> list[str]:
    """One line for each model and target that has a recommendation."""
    lines: dict[str, None] = {}
    for report in measured:
        if chosen := report.recommendation:
            where = f"{report.device}: " if report.device else ""
            where += f"{report.model} on {report.target}"
            lines[f"{where}: ship {chosen.precision.upper()}: {chosen.reason}"] = None
    return list(lines)


def next_commands(paths: Sequence[Path]) -> str:
    """What to type next, with the paths just written."""
    int8 = [path for path in paths if path.name.endswith("-int8")]
    return f"next: {command('bench', (int8 or paths)[-1], duration=10)}"

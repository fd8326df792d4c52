"""Tables of reports: what each column takes from one, and which columns hold anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from vitedge.show.page.report import Report, count, interval, look, names, number, within
from vitedge.show.page.shell import safe
from vitedge.show.page.table import Kind, table
from vitedge.show.terminal.tables import DASH

Cell = Callable[[Report], str]
Columns = Mapping[str, tuple[Kind, Cell]]


def at(*keys: str, how: str = "", unit: float = 1.0) -> Cell:
    return lambda report: number(look(report, *keys), how, unit)


def counted(*keys: str) -> Cell:
    return lambda report: count(look(report, *keys))


def between(*keys: str, how: str = "") -> Cell:
    *section, last = keys
    return lambda r: within(look(r, *keys), look(r, *section, f"{last}_ci"), how)


def dropped(report: Report) -> str:
    """Accuracy lost against FP32, points; FP32 loses nothing against itself."""
    accuracy = look(report, "accuracy") or {}
    if report["precision"] == "fp32":
        return DASH
    return within(accuracy.get("drop_pp"), accuracy.get("drop_ci_pp"), "+.2f")


def text(*keys: str) -> Cell:
    return lambda report: str(look(report, *keys) or DASH)


def answered(*keys: str) -> Cell:
    return lambda r: DASH if (answer := look(r, *keys)) is None else "yes" if answer else "no"


def ranged(*keys: str) -> Cell:
    return lambda report: interval(look(report, *keys))


def section(title: str, reports: Sequence[Report], key: str, columns: Columns) -> Iterable[str]:
    """A table of the reports that hold `key`, without columns that hold nothing."""
    rows = [
        [name, *(cell(report) for _, cell in columns.values())]
        for name, report in zip(names(reports), reports, strict=True)
        if report.get(key)
    ]
    if not rows:
        return
    kinds: list[tuple[str, Kind]] = [("artifact", "head")]
    kinds += [(column, kind) for column, (kind, _) in columns.items()]
    yield f"<section><h2>{safe(title)}</h2>"
    yield from table(title, *held(dict(kinds), rows))
    yield "</section>"


def held(
    columns: Mapping[str, Kind], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, Kind], list[list[str]]]:
    """The columns that hold anything, and the cells of `rows` in them."""
    places = [i for i in range(len(columns)) if any(row[i] != DASH for row in rows)]
    titles = list(columns)
    cells = [[row[i] for i in places] for row in rows]
    return {titles[i]: columns[titles[i]] for i in places}, cells

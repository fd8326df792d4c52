"""A figure is declared once, as a column; every surface renders tables of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar, cast

from vitedge.show.text import DASH, number

Row = TypeVar("Row")
Part = TypeVar("Part")
Other = TypeVar("Other")
Interval = tuple[float, float]
Value = float | str | Interval | None
"""An int or a bool is a float; None: it was not measured."""
Kind = Literal["number", "interval", "head", "name", "word", "text", "answer", "code"]
"""`head` names its row, `name` may break after its separators, `word` stays on one line, `answer`
is a gate's."""


@dataclass(frozen=True)
class Surface:
    """Where a table is shown, and how it writes intervals and what is missing there."""

    name: str
    between: str
    """Of the two ends of an interval."""
    within: str
    """Of a value and its interval."""
    missing: str = DASH


TERMINAL = Surface("terminal", "{}…{}", "{}\n{}")
PAGE = Surface("page", "{} … {}", "{} ({})")
MARKDOWN = Surface("markdown", "{} to {}", "{} ({})", missing="not measured")
EVERYWHERE = ("terminal", "page", "markdown", "csv")
SCALES = {"%": 0.01, "MB": 1e6, "GB": 1e9, "mJ": 1e-3}
"""Units shown, in that of the value: a share, bytes, joules. Others are the value's own."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One figure: what it is called, how it is written, and how it is read from a row."""

    key: str
    """Its name for machines, with its unit."""
    title: str
    """A line break is for narrow terminals."""
    unit: str
    """Of what is shown; empty for text and ratios."""
    of: Callable[[Row], Value]
    format: str = ".3g"
    """As `text.number` takes it."""
    ci: Callable[[Row], Interval | None] | None = None
    """Its 95% interval, where it has one."""
    kind: Kind = "number"
    on: tuple[str, ...] = EVERYWHERE
    sparse: bool = False
    """Left out where no row has it, even of a table that keeps empty columns."""

    def read(
        self, of: Callable[[Other], Value], ci: Callable[[Other], Interval | None] | None = None
    ) -> Column[Other]:
        """The same figure of another kind of row."""
        return cast("Column[Other]", replace(cast("Any", self), of=of, ci=ci))

    def cell(self, row: Row, surface: Surface) -> str:
        """The figure of a row, as text."""
        value, ends = self.of(row), self.ci(row) if self.ci else None
        if value is None:
            return surface.missing
        text = self._text(value, surface)
        return surface.within.format(text, self._text(ends, surface)) if ends else text

    def heading(self, surface: Surface) -> str:
        """Title, unit, and that there is an interval; on a second line of a terminal."""
        details = ", ".join(filter(None, (self.unit, "95% CI" if self.ci else "")))
        broken = surface is TERMINAL and "\n" not in self.title
        heading = f"{self.title}{chr(10) if broken and details else ' '}{details}".strip()
        return heading if surface is TERMINAL else " ".join(heading.split())

    @property
    def keys(self) -> tuple[str, ...]:
        """Its columns in CSV: the value, and the ends of its interval."""
        return (self.key, f"{self.key}_low", f"{self.key}_high") if self.ci else (self.key,)

    def values(self, row: Row) -> Mapping[str, object]:
        """Exact values of a row by `keys`."""
        ends = (self.ci(row) if self.ci else None) or (None, None)
        return dict(zip(self.keys, (self.of(row), *ends), strict=False))

    def _text(self, value: float | str | Interval, surface: Surface) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "yes" if value else "no"
        scale = SCALES.get(self.unit, 1.0)
        if isinstance(value, tuple):
            return surface.between.format(*(number(end / scale, self.format) for end in value))
        return number(value / scale, self.format)


def lift(of: Callable[[Row], Part | None], *columns: Column[Part]) -> tuple[Column[Row], ...]:
    """`columns` of a part, as columns of the rows that have it."""

    def through(read: Callable[[Part], Other | None]) -> Callable[[Row], Other | None]:
        return lambda row: None if (part := of(row)) is None else read(part)

    return tuple(
        column.read(through(column.of), through(column.ci) if column.ci else None)
        for column in columns
    )


def listed(**titles: Sequence[str]) -> tuple[Column[Sequence[Value]], ...]:
    """Columns of rows that are plain sequences, in their order: their titles by kind."""
    pairs = [(title, cast("Kind", kind)) for kind in titles for title in titles[kind]]
    return tuple(Column(t, t, "", itemgetter(i), kind=k) for i, (t, k) in enumerate(pairs))


def only(surfaces: tuple[str, ...], *columns: Column[Row]) -> tuple[Column[Row], ...]:
    """`columns`, shown nowhere else."""
    return tuple(replace(column, on=surfaces) for column in columns)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows under columns; without columns that hold nothing, and rows that hold but a name."""

    title: str
    columns: Sequence[Column[Row]]
    rows: Sequence[Row]
    keeps_empty: bool = False
    """But on a page: a column of dashes says what was not measured."""

    def layout(self, surface: Surface) -> tuple[list[Column[Row]], list[list[str]]]:
        """The columns shown on a surface, and the cells of each row."""
        columns = [column for column in self.columns if surface.name in column.on]
        lines = [[column.cell(row, surface) for column in columns] for row in self.rows]

        def says(cell: str) -> bool:
            return cell not in (surface.missing, "")

        keeps_empty = self.keeps_empty and surface is not PAGE
        if not keeps_empty:
            figures = [i for i, column in enumerate(columns) if column.kind != "head"]
            lines = [line for line in lines if any(says(line[i]) for i in figures)]
        held = [
            (keeps_empty and not column.sparse) or any(says(line[i]) for line in lines)
            for i, column in enumerate(columns)
        ]
        return [*compress(columns, held)], [[*compress(line, held)] for line in lines]


def facts(columns: Sequence[Column[Row]], row: Row) -> dict[str, str]:
    """What is known of one row as a list of title and value, with its unit."""
    cells = {column: column.cell(row, PAGE) for column in columns if "page" in column.on}
    return {
        column.title: f"{cell} {column.unit}".rstrip().replace(" %", "%")
        for column, cell in cells.items()
        if cell not in (DASH, "")
    }

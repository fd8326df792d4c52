"""The answers of a gate: every limit in a table, and where each interval lies against its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vitedge.pages.chart import hover, legend, linear, strips
from vitedge.pages.measured import count, interval, number
from vitedge.pages.shell import safe
from vitedge.pages.table import answer, table
from vitedge.tables import DASH

if TYPE_CHECKING:
    from vitedge.verdict import Check, Judged

STRIP_PX = 40
_SIGNS = {"max": "≤", "min": "≥"}
_UNITS = {"bytes": (1e6, "MB"), "pp": (1.0, "pp"), "ms": (1.0, "ms"), "db": (1.0, "dB")}
_COLOURS = {"passed": "c2", "failed": "c4", "inconclusive": "c1"}


def checks(judged: Sequence[Judged]) -> Iterable[str]:
    """Every limit of every artifact."""
    rows = [
        (
            *(one.artifact, check.answer, limit(check)),
            *(_value(check, check.value), _between(check), check.reason, count(check.needed)),
        )
        for one in judged
        for check in one.checks
    ]
    needed = any(check.needed for one in judged for check in one.checks)
    yield "<section><h2>Limits</h2>"
    yield from table(
        "Limits",
        {
            **{"artifact": "head", "answer": "answer", "limit": "short", "measured": "number"},
            **{"interval": "number", "why": "text"},
            **({"would decide": "number"} if needed else {}),
        },
        [row if needed else row[:-1] for row in rows],
    )
    yield "</section>"


def limit(check: Check) -> str:
    """The limit in words: `drop ≤ 0.5 pp`."""
    name, _, unit = _unit(check)
    return f"{name} {_SIGNS[check.bound]} {_value(check, check.limit)} {unit}".rstrip()


def _unit(check: Check) -> tuple[str, float, str]:
    """Name without its unit, how much one unit is, and how it is written."""
    name, _, last = check.metric.rpartition("_")
    size, unit = _UNITS.get(last, (1.0, ""))
    return (name if unit else check.metric).replace("_", " "), size, unit


def _value(check: Check, value: float | None) -> str:
    return number(value, ".4g", _unit(check)[1])


def _between(check: Check) -> str:
    size = _unit(check)[1]
    return DASH if check.interval is None else interval([v / size for v in check.interval], ".4g")


def intervals(judged: Sequence[Judged]) -> Iterable[str]:
    """A picture for each metric that has intervals: where they lie, and the limits."""
    metrics = dict.fromkeys(c.metric for one in judged for c in one.checks if c.interval)
    for metric in metrics:
        rows = [
            (one.artifact, check)
            for one in judged
            for check in one.checks
            if check.metric == metric and check.interval and check.value is not None
        ]
        if rows:
            yield from _picture(rows)


def _picture(rows: Sequence[tuple[str, Check]]) -> Iterable[str]:
    name, size, unit = _unit(rows[0][1])
    edges = [v / size for _, c in rows for v in (*(c.interval or ()), c.limit, c.value or 0.0)]
    room = 0.03 * (max(edges) - min(edges) or 1.0)
    axis = linear(f"{name}, {unit}".rstrip(", "), [min(edges) - room, max(edges) + room])
    label = f"{name} of {len(rows)} artifacts with its interval and limit; the table has the values"
    frame = strips(axis, len(rows), "", label, STRIP_PX)
    marks = []
    for strip, (artifact, check) in enumerate(reversed(rows)):
        low, high = (v / size for v in check.interval or (0.0, 0.0))
        at, line, value = strip + 0.28, check.limit / size, (check.value or 0.0) / size
        css = _COLOURS[check.answer]
        drawn = [
            frame.line([(line, strip), (line, strip + 1)], "limit"),
            frame.line([(low, at), (high, at)], f"line {css}"),
            *(frame.line([(end, at - 0.1), (end, at + 0.1)], f"line {css}") for end in (low, high)),
            frame.dot(value, at, f"dot {css}"),
            frame.text(axis.low, strip + 1, f"{answer(check.answer)}: {artifact}", shift=(6, 17)),
        ]
        said = f"{artifact}: {_value(check, check.value)} ({_between(check)}), {limit(check)}"
        marks.append(hover(said, *drawn))
    yield f"<section><h2>{safe(name.capitalize())} with its interval</h2>"
    dot = '<path class="line c0" d="M2 8H28"/><circle class="dot c0" cx="15" cy="8" r="4"/>'
    yield legend(
        [(dot, "measured, and its interval"), ('<path class="limit" d="M0 8H30"/>', "limit")]
    )
    yield from frame.svg(marks)
    yield "</section>"

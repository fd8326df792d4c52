"""The answers of a gate: every limit in a table, and where each interval lies against its limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from vitedge.show.ci import figures
from vitedge.show.page.chart import hover, legend, linear, strips
from vitedge.show.page.report import count
from vitedge.show.page.shell import safe
from vitedge.show.page.table import SIGNS, answer, table
from vitedge.show.terminal.tables import DASH

if TYPE_CHECKING:
    from vitedge.gate.verdict import Check, Verdict

STRIP_PX = 40
_SIGNS = {"max": "≤", "min": "≥"}
_COLOURS = {"passed": "c2", "failed": "c4", "inconclusive": "c1"}

NamedCheck = tuple[str, "Check"]
"""A check, and what it is a check of."""


def checks(verdict: Verdict) -> Iterable[str]:
    """Every limit of every artifact."""
    named = _named(verdict)
    rows = [
        (
            *(name, check.answer, limit(check), _measured(check), _between(check)),
            *(check.reason, count(check.needed)),
        )
        for name, check in named
    ]
    needed = any(check.needed for _, check in named)
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
    most = figures.quantity(check.metric, check.limit)
    return f"{figures.label(check.metric)} {_SIGNS[check.bound]} {most}"


def intervals(verdict: Verdict) -> Iterable[str]:
    """A picture for each metric that has intervals: where they lie, and the limits."""
    drawn = [
        (name, check)
        for name, check in _named(verdict)
        if figures.interval(check) and figures.finite(check) is not None and isfinite(check.limit)
    ]
    for metric in dict.fromkeys(check.metric for _, check in drawn):
        yield from _picture([(name, check) for name, check in drawn if check.metric == metric])


def _named(verdict: Verdict) -> list[NamedCheck]:
    """Every check, those of the worst artifacts first."""
    named = zip(figures.names(verdict), verdict.judged, strict=True)
    ordered = sorted(named, key=lambda pair: list(SIGNS).index(pair[1].answer))
    return [(name, check) for name, judged in ordered for check in judged.checks]


def _measured(check: Check) -> str:
    value = figures.measured(check)
    return DASH if value is None else figures.quantity(check.metric, value)


def _between(check: Check) -> str:
    ends = check.interval
    return " … ".join(figures.amount(check.metric, end) for end in ends) if ends else DASH


def _picture(rows: Sequence[NamedCheck]) -> Iterable[str]:
    metric = rows[0][1].metric
    name, unit = figures.label(metric), figures.unit(metric)

    def places(check: Check) -> list[float]:
        """Limit, value, and the interval's ends."""
        numbers = (check.limit, figures.finite(check), *(figures.interval(check) or ()))
        return [figures.scaled(metric, value) for value in numbers if value is not None]

    edges = [place for _, check in rows for place in places(check)]
    room = 0.03 * (max(edges) - min(edges) or 1.0)
    axis = linear(f"{name}, {unit}".rstrip(", "), [min(edges) - room, max(edges) + room])
    label = f"{name} of {len(rows)} artifacts with its interval and limit; the table has the values"
    frame = strips(axis, len(rows), "", label, STRIP_PX)
    marks = []
    for strip, (artifact, check) in enumerate(reversed(rows)):
        line, value, low, high = places(check)
        at, css = strip + 0.28, _COLOURS[check.answer]
        drawn = [
            frame.line([(line, strip), (line, strip + 1)], "limit"),
            frame.line([(low, at), (high, at)], f"line {css}"),
            *(frame.line([(end, at - 0.1), (end, at + 0.1)], f"line {css}") for end in (low, high)),
            frame.dot(value, at, f"dot {css}"),
            frame.text(axis.low, strip + 1, f"{answer(check.answer)}: {artifact}", shift=(6, 17)),
        ]
        marks.append(
            hover(f"{artifact}: {_measured(check)} ({_between(check)}), {limit(check)}", *drawn)
        )
    yield f"<section><h2>{safe(name.capitalize())} with its interval</h2>"
    dot = '<path class="line c0" d="M2 8H28"/><circle class="dot c0" cx="15" cy="8" r="4"/>'
    yield legend(
        [(dot, "measured, and its interval"), ('<path class="limit" d="M0 8H30"/>', "limit")]
    )
    yield from frame.svg(marks)
    yield "</section>"

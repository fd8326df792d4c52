"""Markdown for a GitHub step summary, or a comment on a merge request.

Names come from bundles that anybody may have made: every one is escaped.
"""

from __future__ import annotations

import re

from vitedge.gate.verdict import Answer, Check, Verdict
from vitedge.show.ci import figures
from vitedge.show.ci.ruler import ruler

MOST_BYTES = 1 << 20
"""Of a step's summary on GitHub."""
SIGNS = {"passed": "✅", "failed": "❌", "inconclusive": "⚠️"}
WORST_FIRST: tuple[Answer, ...] = ("failed", "inconclusive", "passed")
UNSAFE = re.compile(
    r"[\\`*\[\]<>&|~#$@]|:(?=\S)"  # markup, mentions, references, formulas, links, emoji
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # inside a word it marks nothing
    r"|(?<=[wW]{3})\."  # else a link
)


def render(verdict: Verdict, room_bytes: int = MOST_BYTES) -> str:
    """A table of checks, worst first, in at most `room_bytes` of UTF-8; empty where none fits."""
    head = f"### {SIGNS[verdict.answer]} vitedge gate: {verdict.answer}\n\n"
    columns = ["artifact", "check", "measured", "interval", "limit", "limit at ┃", "answer"]
    head += f"|{'|'.join(columns)}|\n|{'|'.join('---' for _ in columns)}|\n"
    foot = (
        f"\nEach end of an interval is a one-sided {100 * verdict.confidence:.4g}% bound; "
        "`●` is what was measured.\n\n"
    )
    rows = sorted(
        (
            (check, name)
            for name, judged in zip(figures.names(verdict), verdict.judged, strict=True)
            for check in judged.checks
        ),
        key=lambda row: WORST_FIRST.index(row[0].answer),
    )
    more = "\n{} more checks: no room for them here.\n"
    room = room_bytes - _size(head + more.format(len(rows)) + foot)
    table, notes = [], []
    for check, name in rows:
        row, note = _row(check, name), _note(check, name)
        room -= _size(row + note)
        if room < 0:
            break
        table.append(row)
        notes.append(note)
    left = len(rows) - len(table)
    if left and not table:
        return ""
    reasons = [f"\n{''.join(notes)}"] if any(notes) else []
    return "".join((head, *table, *reasons, more.format(left) if left else "", foot))


def escape(text: str) -> str:
    """`text` that shows as it is anywhere in Markdown: no markup, link, mention or table cell."""
    return UNSAFE.sub(lambda match: f"&#{ord(match[0])};", figures.one_line(text))


def _row(check: Check, name: str) -> str:
    metric, value = check.metric, figures.measured(check)
    ends = check.interval
    cells = [
        escape(name),
        escape(figures.label(metric)),
        "not measured" if value is None else figures.quantity(metric, value),
        f"{figures.amount(metric, ends[0])} to {figures.amount(metric, ends[1])}" if ends else "",
        f"{'≤' if check.bound == 'max' else '≥'} {figures.quantity(metric, check.limit)}",
        _code(ruler(check)),
        f"{SIGNS[check.answer]} {check.answer}",
    ]
    return f"|{'|'.join(cells)}|\n"


def _note(check: Check, name: str) -> str:
    if check.answer == "passed":
        return ""
    return f"- {escape(name)}, {escape(figures.label(check.metric))}: {escape(check.reason)}\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _size(text: str) -> int:
    return len(text.encode())

"""Markdown for a GitHub step summary, or a comment on a merge request.

Names come from bundles that anybody may have made: every one is escaped.
"""

from __future__ import annotations

import re

from vitedge.gate.verdict import Verdict
from vitedge.show import checks
from vitedge.show.table import MARKDOWN, Kind, Row, Table
from vitedge.show.text import number, one_line

MOST_BYTES = 1 << 20
"""Of a step's summary on GitHub."""
SIGNS = {"passed": "✅", "failed": "❌", "inconclusive": "⚠️"}
UNSAFE = re.compile(
    r"[\\`*\[\]<>&|~#$@]|:(?=\S)"  # markup, mentions, references, formulas, links, emoji
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # inside a word it marks nothing
    r"|(?<=[wW]{3})\."  # else a link
)


def render(verdict: Verdict, room_bytes: int = MOST_BYTES) -> str:
    """A table of checks, worst first, in at most `room_bytes` of UTF-8; empty where none fits."""
    rows = sorted(checks.rows(verdict), key=lambda row: checks.WORST_FIRST.index(row.check.answer))
    columns, under, *lines = table(Table("", checks.COLUMNS, rows, keeps_empty=True))
    head = f"### {SIGNS[verdict.answer]} vitedge gate: {verdict.answer}\n\n{columns}{under}"
    confidence = number(100 * verdict.confidence, ".4g")
    foot = (
        f"\nEach end of an interval is a one-sided {confidence}% bound; "
        "`●` is what was measured.\n\n"
    )
    foot += "".join(f"- {escape(line)}\n" for line in checks.signatures(verdict)) + "\n"
    more = "\n{} more checks: no room for them here.\n"
    room = room_bytes - _size(head + more.format(len(rows)) + foot)
    shown: list[str] = []
    notes: list[str] = []
    for line, note in zip(lines, map(_note, rows), strict=True):
        room -= _size(line + note)
        if room < 0:
            break
        shown.append(line)
        notes.append(note)
    left = len(rows) - len(shown)
    if left and not shown:
        return ""
    reasons = [f"\n{''.join(notes)}"] if any(notes) else []
    return "".join((head, *shown, *reasons, more.format(left) if left else "", foot))


def table(content: Table[Row]) -> list[str]:
    """A table's lines: its head, the line under it, and its rows."""
    columns, lines = content.layout(MARKDOWN)
    cells = [[column.heading(MARKDOWN) for column in columns], ["---"] * len(columns)]
    for line in lines:
        pairs = zip(line, columns, strict=True)
        cells.append([_cell(text, column.kind) for text, column in pairs])
    return [f"|{'|'.join(line)}|\n" for line in cells]


def escape(text: str) -> str:
    """`text` that shows as it is anywhere in Markdown: no markup, link, mention or table cell."""
    return UNSAFE.sub(lambda match: f"&#{ord(match[0])};", one_line(text))


def _cell(text: str, kind: Kind) -> str:
    if kind == "answer":
        return f"{SIGNS[text]} {text}"
    return f"`{text}`" if kind == "code" and text else escape(text)


def _note(row: checks.NamedCheck) -> str:
    if row.check.answer == "passed":
        return ""
    return f"- {escape(row.name)}, {escape(row.label)}: {escape(row.check.reason)}\n"


def _size(text: str) -> int:
    return len(text.encode())

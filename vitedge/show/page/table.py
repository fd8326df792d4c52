"""Tables of a page: columns say what they hold, cells are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from vitedge.show.page.shell import safe, scroll

MOST_ROWS = 1000
FOLDED_ROWS = 12

Kind = Literal["", "number", "name", "text", "short", "head", "answer"]
"""`short` stays on one line, `head` names its row, and `answer` is a gate's."""
SIGNS = {"failed": "✗", "inconclusive": "?", "passed": "✓"}
"""So that an answer does not hang on its colour; the worst first."""


def table(
    label: str,
    columns: Mapping[str, Kind],
    rows: Sequence[Sequence[str]],
    more: str = "more are in --json",
) -> Iterable[str]:
    """At most MOST_ROWS `rows` under `columns`; `more` says where the others are."""
    heads = "".join(
        f'<th scope="col" class="{"" if kind == "head" else kind}">{safe(title)}</th>'
        for title, kind in columns.items()
    )
    yield f"{scroll(label)}<table><thead><tr>{heads}</tr></thead><tbody>"
    for row in rows[:MOST_ROWS]:
        cells = zip(row, columns.values(), strict=True)
        yield f"<tr>{''.join(_cell(cell, kind) for cell, kind in cells)}</tr>"
    yield "</tbody></table></div>"
    if len(rows) > MOST_ROWS:
        yield f'<p class="soft">{len(rows) - MOST_ROWS:,} {more}.</p>'


def folded(label: str, columns: Mapping[str, Kind], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """A table that is opened by a click where it is long."""
    if len(rows) <= FOLDED_ROWS:
        yield from table(label, columns, rows)
        return
    shown = table(label, columns, rows)
    yield from (f"<details><summary>All {len(rows):,} values</summary>", *shown, "</details>")


def answer(outcome: str) -> str:
    """An answer with its sign."""
    return f"{SIGNS[outcome]} {outcome}"


def _cell(text: str, kind: Kind) -> str:
    """One cell; a name may break after its separators."""
    html = safe(text)
    if kind == "head":
        return f'<th scope="row">{_breakable(html)}</th>'
    if kind == "answer":
        return f'<td class="answer {text}">{answer(text)}</td>' if text in SIGNS else "<td>–</td>"
    return f'<td class="{kind}">{_breakable(html) if kind == "name" else html}</td>'


def _breakable(html: str) -> str:
    return html.replace("/", "/<wbr>").replace(".", ".<wbr>").replace("_", "_<wbr>")

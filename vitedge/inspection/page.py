"""An inspection as one HTML page that needs nothing else: error against depth, and every layer.

Everything from a model is escaped: a node may be called <script>.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.errors import InputError
from vitedge.inspection import curve
from vitedge.inspection import table as cells

if TYPE_CHECKING:
    from vitedge.inspection import Inspection, Row

WIDTH, HEIGHT = 960, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
MOST_ROWS = 1000
"""Of a table; with LONGEST it keeps a page under 2 MB."""
LONGEST = 160
"""Characters of a name that are shown."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --paper: #ffffff;
  --line: #d0d7de; --own: #b35900; --sofar: #0550ae; --band: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9ea7b3; --paper: #0d1117;
  --line: #3d444d; --own: #ffa657; --sofar: #79c0ff; --band: #161b22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 80rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; }
.note { border-left: 4px solid var(--own); padding: .2rem .75rem; background: var(--band); }
.soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible { outline: 3px solid var(--sofar); } .scroll + .scroll { margin-top: .75rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { background: var(--band); white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.name { min-width: 16rem; overflow-wrap: break-word; font-family: ui-monospace, monospace; }
td.text { min-width: 15rem; }
tr:last-child td { border-bottom: 0; }
svg { display: block; width: 100%; min-width: 44rem; height: auto; }
svg text { fill: var(--soft); font: 14px system-ui, sans-serif; }
g:hover .hit { fill: var(--line); fill-opacity: .5; } .hit { fill: transparent; }
.grid { stroke: var(--line); } .sofar { stroke: var(--sofar); fill: none; stroke-width: 2; }
.sofar-dot { fill: var(--sofar); } .own-dot { fill: var(--own); }
.float-dot { fill: var(--paper); stroke: var(--sofar); stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0;
  margin: .5rem 0; font-size: .9rem; }
.legend svg { display: inline-block; width: 1.5rem; min-width: 0; height: .8rem; }
@media (max-width: 40rem) { body { padding: .9rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; }
  svg text { font-size: 17px; } td.name { min-width: 10rem; } }
"""

_LEGEND = """<ul class="legend">
<li><svg viewBox="0 0 30 16" aria-hidden="true"><path class="sofar" d="M0 8H30"/>
<circle class="sofar-dot" cx="15" cy="8" r="5"/></svg> so far: INT8 graph against FP32</li>
<li><svg viewBox="0 0 30 16" aria-hidden="true"><circle class="float-dot" cx="15" cy="8" r="5"/>
</svg> likewise, layer in float</li>
<li><svg viewBox="0 0 30 16" aria-hidden="true"><path class="own-dot" d="M15 2 22 14 8 14Z"/></svg>
own: this layer's rounding alone</li></ul>"""


def check_writable(path: Path) -> None:
    """Refuse, before any work, a path that no page can be written to."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {path} is no HTML file's name", fix="let it end in .html")
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}", fix="give a file in a folder of your own")


def write(found: Inspection, path: Path) -> None:
    """Write the page in one rename. Raises InputError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(render(found), encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", fix="free some space") from error
    finally:
        temporary.unlink(missing_ok=True)


def render(found: Inspection) -> str:
    """The whole page."""
    name = escape(found.name)
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{name}: what INT8 costs</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_STYLE}</style></head><body><main>",
            f"<h1>{name}</h1>",
            f"<p>{escape(cells.summary(found))}</p>",
            *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
            *_chart(found.layers),
            *(curve.section(found.training) if found.training else ()),
            *_layers(found),
            *_quantizers(found),
            *_lint(found),
            *_about(found),
            "</main></body></html>",
            "",
        )
    )


def _chart(rows: Sequence[Row]) -> Iterable[str]:
    values = [v for row in rows for v in (row.sqnr_db, row.accumulated_sqnr_db) if v is not None]
    if not values:
        return
    low = 10 * math.floor(min(values) / 10)
    high = max(10 * math.ceil(max(values) / 10), low + 10)
    step = 10 * math.ceil((high - low) / 80)
    count = len(rows)

    def x(row: Row) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (row.depth - 0.5) / count

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    yield "<section><h2>Error against depth</h2>"
    yield '<p class="soft">Signal to noise of each layer\'s output; higher is better.</p>'
    yield _LEGEND
    yield '<div class="scroll" tabindex="0" role="group" aria-label="Chart, scrolls sideways">'
    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="SQNR in decibels of '
        f'{count} layers against depth; the table below has every value">'
    )
    for tick in range(low, high + 1, step):
        yield f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield (
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">SQNR, dB</text>'
    )
    every = max(1, math.ceil(count / 12))
    for row in rows[::every]:
        yield f'<text x="{x(row):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{row.depth}</text>'
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        "layer, in graph order</text>"
    )
    points = [(row, row.accumulated_sqnr_db) for row in rows]
    line = " ".join(f"{x(row):.1f},{y(v):.1f}" for row, v in points if v is not None)
    yield f'<polyline class="sofar" points="{line}"/>'
    column = (WIDTH - LEFT - RIGHT) / count
    for row in rows:
        yield (
            f'<g><title>{escape(_short(_hover(row)))}</title><rect class="hit" y="{TOP}" '
            f'x="{x(row) - column / 2:.1f}" width="{column:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
        )
        if row.accumulated_sqnr_db is not None:
            kind = "sofar-dot" if row.quantized else "float-dot"
            at = f'cx="{x(row):.1f}" cy="{y(row.accumulated_sqnr_db):.1f}"'
            yield f'<circle class="{kind}" {at} r="4"/>'
        if row.sqnr_db is not None:
            peak = f"{x(row):.1f} {y(row.sqnr_db) - 6:.1f}"
            yield f'<path class="own-dot" d="M{peak}l5.5 10h-11Z"/>'
        yield "</g>"
    yield "</svg></div></section>"


def _hover(row: Row) -> str:
    own = "float" if row.sqnr_db is None else f"own {row.sqnr_db:.1f} dB"
    reached = row.accumulated_sqnr_db
    so_far = "exact so far" if reached is None else f"so far {reached:.1f} dB"
    return f"{row.depth}. {row.node}: {own}, {so_far}"


def _cell(text: str, kind: str) -> str:
    """Escaped; a node's name may break after its separators."""
    safe = escape(_short(text))
    return safe.replace("/", "/<wbr>").replace(".", ".<wbr>") if kind == "name" else safe


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _layers(found: Inspection) -> Iterable[str]:
    if not found.layers:
        return
    order = ", worst first" if found.summary.worst else ""
    yield f"<section><h2>Layers{order}</h2>"
    rows = [cells.layer_cells(row) for row in found.worst_first()]
    numbers = {"#", "SQNR dB", "so far dB", "clipped %", "activation scale", "weight scales"}
    yield from _table("Layers", cells.LAYER_COLUMNS, rows, numbers, {"layer"})
    yield "</section>"


def _quantizers(found: Inspection) -> Iterable[str]:
    if not found.quantizers:
        return
    yield "<section><h2>Tensors with a scale</h2>"
    rows = [cells.quantizer_cells(tensor) for tensor in found.quantizers]
    yield from _table(
        "Tensors", cells.QUANTIZER_COLUMNS, rows, {"scales", "zero point"}, {"tensor"}
    )
    yield "</section>"


def _lint(found: Inspection) -> Iterable[str]:
    if found.lint is None:
        return
    yield f"<section><h2>Lint</h2><p>{escape(cells.verdict(found))}</p>"
    if found.lint:
        yield from _table("Lint", cells.LINT_COLUMNS, cells.lint_rows(found), set(), {"node"})
    yield "</section>"


def _about(found: Inspection) -> Iterable[str]:
    yield "<section><h2>About</h2><dl>"
    for key, value in found.about.items():
        yield f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>"
    yield "</dl></section>"


def _table(
    label: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[str],
    names: set[str],
) -> Iterable[str]:
    kind_of = {**dict.fromkeys(numbers, "number"), **dict.fromkeys(names, "name")}
    kind_of |= dict.fromkeys(("why", "what", "fix"), "text")
    kinds = [kind_of.get(column, "") for column in columns]
    heads = "".join(
        f'<th scope="col" class="{kind}">{escape(column)}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    yield f'<div class="scroll" tabindex="0" role="group" aria-label="{label}, scrolls sideways">'
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for row in rows[:MOST_ROWS]:
        cols = "".join(
            f'<td class="{kind}">{_cell(cell, kind)}</td>'
            for cell, kind in zip(row, kinds, strict=True)
        )
        yield f"<tr>{cols}</tr>"
    yield "</tbody></table></div>"
    if len(rows) > MOST_ROWS:
        yield f'<p class="soft">{len(rows) - MOST_ROWS:,} more are in --json.</p>'

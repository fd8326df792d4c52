"""An inspection as one HTML page: error against depth, and every layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vitedge.show.page import sqnr, training
from vitedge.show.page.shell import definitions, document, safe
from vitedge.show.page.table import Kind, table
from vitedge.show.terminal import inspection as cells

if TYPE_CHECKING:
    from vitedge.measure.inspection import Inspection

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("#", "SQNR dB", "so far dB", "clipped %", "activation scale"), "number"),
    **dict.fromkeys(("weight scales", "scales", "zero point"), "number"),
    **dict.fromkeys(("layer", "tensor", "node"), "name"),
    **dict.fromkeys(("why", "what", "fix"), "text"),
}


def render(inspection: Inspection) -> str:
    """The whole page."""
    return document(f"{inspection.name}: what INT8 costs", _body(inspection))


def _body(inspection: Inspection) -> Iterable[str]:
    yield f"<h1>{safe(inspection.name)}</h1>"
    yield f"<p>{safe(cells.summary(inspection), 1000)}</p>"
    yield from (f'<p class="note">{safe(note, 1000)}</p>' for note in inspection.notes)
    if picture := list(sqnr.picture(inspection.layers, "the table below has every value")):
        yield from ("<section><h2>Error against depth</h2>", *picture, "</section>")
    if inspection.training:
        yield from training.section(inspection.training)
    if inspection.layers:
        order = ", worst first" if inspection.summary.worst else ""
        rows = [cells.layer_cells(row) for row in inspection.worst_first()]
        yield from _section(f"Layers{order}", "Layers", cells.LAYER_COLUMNS, rows)
    if inspection.quantizers:
        rows = [cells.quantizer_cells(tensor) for tensor in inspection.quantizers]
        yield from _section("Tensors with a scale", "Tensors", cells.QUANTIZER_COLUMNS, rows)
    yield from _lint(inspection)
    yield from ("<section><h2>About</h2>", *definitions(inspection.about), "</section>")


def _lint(inspection: Inspection) -> Iterable[str]:
    if inspection.lint is None:
        return
    yield f"<section><h2>Lint</h2><p>{safe(cells.verdict(inspection), 1000)}</p>"
    if inspection.lint:
        yield from _table("Lint", cells.LINT_COLUMNS, cells.lint_rows(inspection))
    yield "</section>"


def _section(
    title: str, label: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterable[str]:
    yield from (f"<section><h2>{title}</h2>", *_table(label, columns, rows), "</section>")


def _table(label: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    return table(label, {column: _KINDS.get(column, "") for column in columns}, rows)

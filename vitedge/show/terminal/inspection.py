"""An inspection as tables for people: the layers that lose most, then what the target minds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitedge.show.terminal import tables
from vitedge.show.terminal.tables import DASH, listing

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.measure.inspection import Inspection, QuantizedTensor, Row

ROWS = 20


def show(inspection: Inspection) -> None:
    """Print the whole inspection on stdout, notes first."""
    for note in inspection.notes:
        print(f"note: {note}")
    if inspection.layers:
        tables.show(layers(inspection))
    if inspection.quantizers:
        tables.show(quantizers(inspection))
    if inspection.lint:
        tables.show(lint(inspection))
    for line in (summary(inspection), left_out(inspection), verdict(inspection)):
        if line:
            print(line)


def layers(inspection: Inspection) -> Table:
    """The worst layers, at most ROWS of them."""
    rows = inspection.worst_first()[:ROWS]
    return listing(LAYER_COLUMNS, [layer_cells(row) for row in rows])


LAYER_COLUMNS = (
    *("#", "layer", "op", "INT8", "SQNR dB", "so far dB", "clipped %"),
    *("activation scale", "weight scales", "why"),
)


def layer_cells(row: Row) -> tuple[str, ...]:
    """One row's cells, as LAYER_COLUMNS names them."""
    return (
        str(row.depth),
        _printable(row.node),
        row.op,
        "yes" if row.quantized else "no",
        _decibels(row.sqnr_db),
        _decibels(row.accumulated_sqnr_db),
        DASH if row.clipped_share is None else f"{100 * row.clipped_share:.2g}",
        ", ".join(f"{scale:.3g}" for scale in row.activation_scales) or DASH,
        _range(row.weight_scales),
        row.why,
    )


def quantizers(inspection: Inspection) -> Table:
    """The first ROWS tensors that have a scale."""
    return listing(QUANTIZER_COLUMNS, [quantizer_cells(q) for q in inspection.quantizers[:ROWS]])


QUANTIZER_COLUMNS = ("tensor", "kind", "type", "scales", "zero point", "axis")


def quantizer_cells(tensor: QuantizedTensor) -> tuple[str, ...]:
    """One tensor's cells, as QUANTIZER_COLUMNS names them."""
    zeros = tensor.zero_points
    return (
        _printable(tensor.tensor),
        tensor.kind,
        tensor.dtype,
        _range(tensor.scales),
        DASH if zeros is None else "…".join(str(zero) for zero in dict.fromkeys(zeros)),
        "per tensor" if tensor.axis is None else str(tensor.axis),
    )


def lint(inspection: Inspection) -> Table:
    """The first ROWS of what the target does not take well, worst first."""
    return listing(LINT_COLUMNS, lint_rows(inspection)[:ROWS])


LINT_COLUMNS = ("consequence", "rule", "node", "what", "fix")


def lint_rows(inspection: Inspection) -> list[tuple[str, ...]]:
    """The cells of every finding, as LINT_COLUMNS names them."""
    findings = inspection.lint or ()
    return [
        (f.consequence, f.rule, _printable(f.node) or "(graph)", _printable(f.what), f.fix)
        for f in findings
    ]


def summary(inspection: Inspection) -> str:
    """The whole inspection in one line."""
    total = inspection.summary
    if not total.operators:
        return ""
    verb = "operators would be in INT8" if inspection.planned else "operators in INT8"
    parts = [f"{total.quantized} of {total.operators} {verb}"]
    if total.quantized_macs_share is not None:
        parts[0] += f" ({100 * total.quantized_macs_share:.1f}% of the MACs)"
    if total.worst is not None:
        parts.append(f"worst {_printable(total.worst)} at {_decibels(total.worst_sqnr_db)} dB")
    if total.accumulated_sqnr_db is not None:
        parts.append(f"{total.accumulated_sqnr_db:.1f} dB at the last layer")
    return "; ".join(parts)


def left_out(inspection: Inspection) -> str:
    """How much the tables leave out; empty where nothing."""
    counts = {"layers": len(inspection.layers), "tensors": len(inspection.quantizers)}
    counts["findings"] = len(inspection.lint or ())
    parts = [f"{ROWS} of {count} {what}" for what, count in counts.items() if count > ROWS]
    return f"shown: {', '.join(parts)}; --json and --html have all" if parts else ""


def verdict(inspection: Inspection) -> str:
    """What the lint says, in one line; empty where there was none."""
    if inspection.lint is None:
        return ""
    if not inspection.lint:
        return f"lint for {inspection.target}: nothing found"
    kinds = {f.rule: None for f in inspection.lint}
    return f"lint for {inspection.target}: {len(inspection.lint)} found ({', '.join(kinds)})"


def _printable(name: str) -> str:
    """A model's name without what would steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in name)


def _decibels(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _range(scales: tuple[float, float] | None) -> str:
    if scales is None:
        return DASH
    return "…".join(dict.fromkeys(f"{scale:.3g}" for scale in scales))

"""Two artifacts side by side, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.gate.compare import Comparison

DASH = "–"


def comparison(found: Comparison) -> Table:
    """One row for each measure: of the first, of the second, and the second against the first."""
    from rich import box
    from rich.table import Table

    first, second = found.sides
    table = Table(title=found.model, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in (first.artifact, second.artifact, f"{100 * found.confidence:g}% interval"):
        table.add_column(name, justify="right", overflow="fold")
    accuracy, latency = found.accuracy, found.latency
    lost = faster = ""
    if accuracy:
        low, high = accuracy.drop_ci_pp
        lost = f"{accuracy.drop_pp:+.2f} pp lost ({low:+.2f} to {high:+.2f})"
    if latency:
        ends = latency.speedup_ci
        known = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        faster = f"{latency.speedup:.2f}× as fast{known}"
    for name, field, how, unit, change in (
        ("accuracy, %", "accuracy", "{:.2f}", 100, lost),
        ("SQNR, dB", "sqnr_db", "{:.1f}", 1, ""),
        ("p50, ms", "p50_ms", "{:.3g}", 1, faster),
        ("p90, ms", "p90_ms", "{:.3g}", 1, ""),
        ("size, MB", "size_bytes", "{:.3g}", 1e-6, ""),
        ("RSS, MB", "peak_rss_bytes", "{:.3g}", 1e-6, ""),
    ):
        values = [getattr(side, field) for side in found.sides]
        cells = [DASH if value is None else how.format(value * unit) for value in values]
        table.add_row(name, *cells, change)
    return table


def remarks(found: Comparison) -> Iterator[str]:
    """How the numbers were paired, or why not."""
    if found.accuracy:
        same = found.accuracy.agreement
        agree = f", the same class on {same:.2%}" if same is not None else ""
        yield f"accuracy: on the same {found.accuracy.n:,} images{agree}"
    if found.latency:
        yield f"latency: {found.latency.how}"
    yield from found.notes

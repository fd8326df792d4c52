"""Two artifacts side by side, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.gate.compare import ArtifactComparison

DASH = "–"


def comparison(comparison: ArtifactComparison) -> Table:
    """One row for each measure: of the first, of the second, and the second against the first."""
    from rich import box
    from rich.table import Table

    first, second = comparison.sides
    table = Table(title=comparison.model, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in (first.artifact, second.artifact, f"{100 * comparison.confidence:g}% interval"):
        table.add_column(name, justify="right", overflow="fold")
    accuracy, latency = comparison.accuracy, comparison.latency
    drop = speedup = ""
    if accuracy:
        low, high = accuracy.drop_ci_pp
        drop = f"{accuracy.drop_pp:+.2f} pp lost ({low:+.2f} to {high:+.2f})"
    if latency:
        ends = latency.speedup_ci
        interval = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        speedup = f"{latency.speedup:.2f}× as fast{interval}"
    for name, field, how, unit, change in (
        ("accuracy, %", "accuracy", "{:.2f}", 100, drop),
        ("SQNR, dB", "sqnr_db", "{:.1f}", 1, ""),
        ("p50, ms", "p50_ms", "{:.3g}", 1, speedup),
        ("p90, ms", "p90_ms", "{:.3g}", 1, ""),
        ("size, MB", "size_bytes", "{:.3g}", 1e-6, ""),
        ("RSS, MB", "peak_rss_bytes", "{:.3g}", 1e-6, ""),
    ):
        values = [getattr(side, field) for side in comparison.sides]
        cells = [DASH if value is None else how.format(value * unit) for value in values]
        table.add_row(name, *cells, change)
    return table


def remarks(comparison: ArtifactComparison) -> Iterator[str]:
    """How the numbers were paired, or why not."""
    if comparison.accuracy:
        agreement = comparison.accuracy.agreement
        agree = f", the same class on {agreement:.2%}" if agreement is not None else ""
        yield f"accuracy: on the same {comparison.accuracy.n:,} images{agree}"
    if comparison.latency:
        yield f"latency: {comparison.latency.how}"
    yield from comparison.notes

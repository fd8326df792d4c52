"""Measurements as tables for people. `--json` prints the same numbers for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.demo import Demo

DASH = "–"


def show(table: Table) -> None:
    """Print a table on stdout, as wide as the terminal; unfolded where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)


def reports(measured: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row for each report, of what it holds."""
    table = _table(title)
    for report in measured:
        table.add_row(*_row(report))
    return table


def demo(result: Demo) -> Table:
    """The demo's table: PyTorch first, then FP32 and INT8 of each runtime."""
    table = _table("digits: FP32 and INT8, accuracy on held-out images, latency in turn")
    accuracy, latency = result.torch_accuracy, result.torch_latency
    table.add_row(
        "PyTorch eager FP32",
        f"{100 * accuracy.artifact:.2f}%",
        DASH,
        DASH,
        DASH,
        *(_ms(value) for value in (latency.p50_ms, latency.p90_ms)),
        DASH,
        DASH,
        DASH,
    )
    for report in result.reports:
        table.add_row(*_row(report))
    return table


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain list, one row each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def plain(value: object) -> str:
    """A setting as people write it: `a, b`, `key = value`, 86,567,656."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {plain(entry)}" for key, entry in value.items()) or DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value) or DASH
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("artifact", no_wrap=True)
    for column in (
        "top-1",
        "drop, pp (95% CI)",
        "agree",
        "SQNR",
        "p50",
        "p90",
        "speed-up (95% CI)",
        "size",
        "RSS",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _row(report: Mapping[str, Any]) -> list[str]:
    accuracy = report.get("accuracy") or {}
    numerics = report.get("numerics") or {}
    latency = report.get("latency") or {}
    size = report.get("size") or {}
    memory = report.get("memory") or {}
    is_fp32 = report["precision"] == "fp32"
    return [
        report["artifact"],
        _format(accuracy.get("artifact"), lambda v: f"{100 * v:.2f}%"),
        DASH
        if is_fp32
        else _interval(accuracy.get("drop_pp"), accuracy.get("drop_ci_pp"), "{:+.2f}"),
        DASH if is_fp32 else _format(accuracy.get("agreement"), lambda v: f"{100 * v:.2f}%"),
        DASH if is_fp32 else _format(numerics.get("sqnr_db"), lambda v: f"{v:.1f} dB"),
        _ms(latency.get("p50_ms")),
        _ms(latency.get("p90_ms")),
        _interval(latency.get("speedup"), latency.get("speedup_ci"), "{:.2f}"),
        _format(size.get("bytes"), _mb),
        _format(memory.get("peak_rss_bytes"), _mb),
    ]


def _format(value: Any, how: Any) -> str:
    return DASH if value is None else str(how(value))


def _ms(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB"


def _interval(value: float | None, interval: Sequence[float] | None, how: str) -> str:
    if value is None:
        return DASH
    text = how.format(value)
    if interval is not None:
        text += f" ({how.format(interval[0])} to {how.format(interval[1])})"
    return text


def next_commands(paths: Sequence[Path]) -> str:
    """What to type next, with the paths just written."""
    int8 = [path for path in paths if path.name.endswith("-int8")]
    first = (int8 or list(paths))[0]
    return f"next: vitedge bench {first} --duration 10"

"""Measurements as tables for people. `--json` prints the same numbers for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.core.report import Parity, Report
    from vitedge.export.demo import Demo

DASH = "–"
P99 = "p99\nms"


def show(table: Table) -> None:
    """Print a table on stdout, as wide as the terminal; unfolded where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)


METRICS = {"top1": "top-1", "miou": "mIoU", "knn_agreement": "k-NN"}


def reports(measured_reports: Sequence[Report], title: str) -> Table:
    """One row for each report, of what it holds."""
    measured = builtins(measured_reports)
    metrics = {METRICS[r["accuracy"]["metric"]] for r in measured if r.get("accuracy")}
    return _proofs(title, metrics.pop() if len(metrics) == 1 else "accuracy", measured)


def parity(parity_section: Parity) -> str:
    """Parity on the golden images, one line."""
    section = msgspec.to_builtins(parity_section)
    if section["broken"]:
        return f"NO PARITY on {section['n']} golden images: {section['broken']}"
    error = section["numerics"]
    sqnr = "equal" if error["sqnr_db"] is None else f"{error['sqnr_db']:.1f} dB SQNR"
    at_export = (
        "" if section["at_export_db"] is None else f" ({section['at_export_db']:.1f} at export)"
    )
    agreement = (
        "" if section["agreement"] is None else f", {section['agreement']:.0%} choose the same"
    )
    return (
        f"parity with FP32 on {section['n']} golden images, which is no accuracy: "
        f"{sqnr}{at_export}, max error {error['max_abs_error']:.2g}{agreement}"
    )


def builtins(reports: Sequence[Report]) -> list[Mapping[str, Any]]:
    return [msgspec.to_builtins(report) for report in reports]


def recommendations(measured: Sequence[Report]) -> list[str]:
    """One line for each model and target that has a recommendation."""
    lines = []
    for report in builtins(measured):
        if chosen := report.get("recommendation"):
            precision = chosen["precision"].upper()
            where = f"{report['model']} on {report['target']}"
            if "device" in report:
                where = f"{report['device']}: {where}"
            lines.append(f"{where}: ship {precision}: {chosen['reason']}")
    return list(dict.fromkeys(lines))


def demo(result: Demo) -> Table:
    """The demo's table: PyTorch first, then FP32 and INT8 of each runtime."""
    timing, accuracy = result.torch_latency, result.torch_accuracy
    latency = {"p50_ms": timing.p50_ms, "p90_ms": timing.p90_ms}
    eager = {
        "artifact": "PyTorch eager FP32",
        "precision": "fp32",
        "latency": latency,
        "accuracy": {"artifact": accuracy.artifact},
    }
    title = "digits: accuracy on held-out images, latency in turn"
    return _proofs(title, METRICS["top1"], [eager, *builtins(result.reports)])


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


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of numbers, the first column of names."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(columns[0], overflow="fold", min_width=16)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _proofs(title: str, metric: str, measured: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each report; p99 only where one of them has enough runs for it."""
    columns = (
        "artifact",
        f"{metric}\n%",
        "drop\npp, 95% CI",
        "agree\n%",
        "SQNR\ndB",
        "p50\nms",
        "p90\nms",
        P99,
        "speed-up\n95% CI",
        "size\nMB",
        "RSS\nMB",
    )
    rows = [_row(report) for report in measured]
    place = columns.index(P99)
    visible = [i != place or any(row[i] != DASH for row in rows) for i in range(len(columns))]
    return grid(title, [*compress(columns, visible)], [[*compress(row, visible)] for row in rows])


def _row(report: Mapping[str, Any]) -> list[str]:
    simulated = report.get("simulation") or {}
    accuracy = report.get("accuracy") or simulated.get("accuracy") or {}
    numerics = report.get("numerics") or simulated.get("numerics") or {}
    latency = report.get("latency") or {}
    size = report.get("size") or {}
    memory = report.get("memory") or {}
    if report["precision"] == "fp32":  # compared with itself: nothing to see
        accuracy, numerics = {"artifact": accuracy.get("artifact")}, {}
    return [
        report["artifact"],
        _number(accuracy.get("artifact"), "{:.2f}", 100),
        _interval(accuracy.get("drop_pp"), accuracy.get("drop_ci_pp"), "{:+.2f}"),
        _number(accuracy.get("agreement"), "{:.4g}", 100),
        _number(numerics.get("sqnr_db"), "{:.1f}"),
        _number(latency.get("p50_ms"), "{:.3g}"),
        _number(latency.get("p90_ms"), "{:.3g}"),
        _number(latency.get("p99_ms"), "{:.3g}"),
        _interval(latency.get("speedup"), latency.get("speedup_ci"), "{:.2f}"),
        _number(size.get("bytes"), "{:.3g}", 1e-6),
        _number(memory.get("peak_rss_bytes"), "{:.3g}", 1e-6),
    ]


def _number(value: float | None, how: str, unit: float = 1) -> str:
    return DASH if value is None else how.format(value * unit)


def _interval(value: float | None, interval: Sequence[float] | None, how: str) -> str:
    """The value, and its interval on a line of its own."""
    if value is None or interval is None:
        return _number(value, how)
    return f"{how.format(value)}\n{how.format(interval[0])}…{how.format(interval[1])}"


def next_commands(paths: Sequence[Path]) -> str:
    """What to type next, with the paths just written."""
    int8 = [path for path in paths if path.name.endswith("-int8")]
    return f"next: vitedge bench {(int8 or paths)[-1]} --duration 10"

"""What `bench` measured beside SingleStream, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from vitedge.show.terminal.tables import DASH, builtins, grid
from vitedge.show.throughput import points

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.core.report import Report

Reports = Sequence[Mapping[str, Any]]


def tables(measured: Sequence[Report]) -> Iterator[Table]:
    """A table for each kind of run that is in any of the reports."""
    reports = builtins(measured)
    columns: tuple[str, ...]
    if rows := list(_throughput(reports)):
        columns = (
            *("artifact", "scenario", "batch", "threads", "streams"),
            *("images/s", "95% CI", "p50\nms", "p90\nms"),
        )
        yield _measured("throughput of settings in turn, offline's best marked *", columns, rows)
    if rows := list(_costs(reports)):
        columns = (
            *("artifact", "load\nms", "first run\nms", "process to\nresult ms", "RSS\nMB"),
            *("GPU\nMB", "mJ\na run", "W"),
        )
        yield _measured("cold start and cost", columns, rows)


def _measured(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without columns that hold nothing."""
    held = [any(row[i] != DASH for row in rows) for i in range(len(columns))]
    return grid(title, [*compress(columns, held)], [[*compress(row, held)] for row in rows])


def facts(measured: Sequence[Report]) -> Iterator[str]:
    """Lines on how sure all that is: drift, energy that is not available, noise."""
    reports = builtins(measured)
    for report in reports:
        if drift := report.get("drift"):
            yield f"{report['artifact']}: {_drift(drift)}"
    notes = [(report.get("energy") or {}).get("note") for report in reports]
    yield from dict.fromkeys(f"energy: {note}" for note in notes if note)
    all_conditions = [report["conditions"] for report in reports if report.get("conditions")]
    yield from dict.fromkeys(_noise(conditions) for conditions in all_conditions)


def warnings(measured: Sequence[Report]) -> list[str]:
    """Why not to trust the numbers, each once."""
    lines: list[str] = []
    for report in builtins(measured):
        if (report.get("drift") or {}).get("slower"):
            lines.append(f"{report['artifact']} got slower while it ran: see its drift")
        lines += (report.get("conditions") or {}).get("warnings", ())
    return list(dict.fromkeys(lines))


def _drift(drift: Mapping[str, Any]) -> str:
    low, high = drift["slope_ci"]
    parts = [
        f"p50 changed by {_signed(drift['slope_percent_per_minute'])}% a minute "
        f"({_signed(low)} to {_signed(high)}) over {drift['duration_s']:.0f} s"
    ]
    if drift["throttled"] is not None:
        parts.append("throttled by heat" if drift["throttled"] else "not throttled")
    if drift["temperature_c"]:
        before, after = drift["temperature_c"]
        parts.append(f"{before:.0f} to {after:.0f} °C")
    return ", ".join(parts)


def _noise(conditions: Mapping[str, Any]) -> str:
    parts = [f"the same work took {_brief(conditions['noise_percent'], 2)}% more or less time"]
    if conditions["other_cores"] is not None:
        parts.append(f"{conditions['other_cores']:.2g} cores busy with other processes")
        parts.append(f"{conditions['steal_percent']:.2g}% stolen")
    if conditions["frequency_mhz"]:
        low, high = conditions["frequency_mhz"]
        parts.append(f"{low:.0f} to {high:.0f} MHz" if low < high else f"{high:.0f} MHz")
    return f"noise of this machine: {', '.join(parts)} (host {conditions['fingerprint']})"


def _throughput(reports: Reports) -> Iterator[Sequence[str]]:
    for report in reports:
        for point in points(report):
            bounds = point.get("images_per_s_ci")
            yield [
                report["artifact"],
                point["scenario"],
                *(str(point[name]) for name in ("batch", "threads", "streams")),
                f"{point['images_per_s']:.4g}{'*' if point.get('best') else ' '}",
                "…".join(f"{bound:.4g}" for bound in bounds) if bounds else DASH,
                *(_number(point.get(name), 1) for name in ("p50_ms", "p90_ms")),
            ]


def _costs(reports: Reports) -> Iterator[Sequence[str]]:
    for report in reports:
        if cold := report.get("cold_start"):
            memory, energy = report.get("memory") or {}, report.get("energy") or {}
            names = ("load_ms", "first_inference_ms", "process_to_ready_ms")
            yield [
                report["artifact"],
                *(_brief(cold[name], 3) for name in names),
                _number(memory.get("peak_rss_bytes"), 1e-6),
                _number(memory.get("device_bytes"), 1e-6),
                _number(energy.get("joules_per_inference"), 1e3),
                _number(energy.get("watts"), 1),
            ]


def _number(value: float | None, unit: float) -> str:
    return DASH if value is None else _brief(value * unit, 3)


def _brief(value: float, digits: int) -> str:
    """So many significant digits, never an exponent."""
    return f"{float(f'{value:.{digits}g}'):.{digits + 6}g}"


def _signed(value: float) -> str:
    return f"{float(f'{value:.2g}'):+.8g}"

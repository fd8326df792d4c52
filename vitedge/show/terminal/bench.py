"""What `bench` measured beside SingleStream, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

from vitedge.show.terminal.tables import DASH, grid

if TYPE_CHECKING:
    from rich.table import Table

Reports = Sequence[Mapping[str, Any]]
PERCENTILES = ("p50\nms", "p90\nms", "p99\nms")


def tables(reports: Reports) -> Iterator[Table]:
    """A table for each kind of run that is in any of the reports."""
    columns: tuple[str, ...]
    if rows := list(_offline(reports)):
        columns = ("artifact", "batch", "streams", "threads\neach", "images/s", "95% CI")
        yield grid("offline: throughput of settings in turn, the best marked *", columns, rows)
    if rows := list(_queries(reports)):
        columns = (
            "artifact",
            "images\na query",
            "batch",
            "streams",
            "p50\nms",
            "p90\nms",
            "p99\nms",
        )
        yield grid("multi-stream: latency of a query", columns, rows)
    if rows := list(_servers(reports)):
        columns = (
            *("artifact", "asked\n/s", "done\n/s", "streams", "busy\n%", "run p50\nms"),
            *(*PERCENTILES, ""),
        )
        yield grid("server: latency with queueing, arrivals at random", columns, rows)
    for name in ("threads", "batch"):
        if rows := list(_sweep(reports, name)):
            columns = ("artifact", name, "p50\nms", "p90\nms", "images/s", "× the first")
            yield grid(f"sweep over {name}, in turn", columns, rows)
    if rows := list(_costs(reports)):
        columns = (
            *("artifact", "load\nms", "first run\nms", "process to\nresult ms", "RSS\nMB"),
            *("GPU\nMB", "mJ\na run", "W"),
        )
        measured = [any(row[i] != DASH for row in rows) for i in range(len(columns))]
        rows = [[*compress(row, measured)] for row in rows]
        yield grid("cold start and cost", [*compress(columns, measured)], rows)


def facts(reports: Reports) -> Iterator[str]:
    """Lines on how sure all that is: drift, energy that is not available, noise."""
    for report in reports:
        if drift := report.get("drift"):
            yield f"{report['artifact']}: {_drift(drift)}"
    notes = [(report.get("energy") or {}).get("note") for report in reports]
    yield from dict.fromkeys(f"energy: {note}" for note in notes if note)
    all_conditions = [report["conditions"] for report in reports if report.get("conditions")]
    yield from dict.fromkeys(_noise(conditions) for conditions in all_conditions)


def warnings(reports: Reports) -> list[str]:
    """Why not to trust the numbers, each once."""
    lines = []
    for report in reports:
        server = report.get("server") or {}
        if server.get("overloaded"):
            unserved = f", {server['unserved']} never served" if server["unserved"] else ""
            lines.append(
                f"{report['artifact']} is overloaded: {server['rate_per_s']:g} a second arrive, "
                f"and it serves {_most(server):.3g}{unserved}; its latency grows with --duration"
            )
        if (report.get("drift") or {}).get("slower"):
            lines.append(f"{report['artifact']} got slower while it ran: see its drift")
        lines += (report.get("conditions") or {}).get("warnings", ())
    return list(dict.fromkeys(lines))


def _most(server: Mapping[str, Any]) -> float:
    return float(server["rate_per_s"] / server["utilization"])


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


def _offline(reports: Reports) -> Iterator[Sequence[str]]:
    for report in reports:
        offline = report.get("offline") or {"points": ()}
        for point in offline["points"]:
            low, high = point["images_per_s_ci"]
            mark = "*" if point == offline["best"] else " "
            yield [
                report["artifact"],
                *(str(point[name]) for name in ("batch", "streams", "threads")),
                f"{point['images_per_s']:.4g}{mark}",
                f"{low:.4g}…{high:.4g}",
            ]


def _queries(reports: Reports) -> Iterator[Sequence[str]]:
    for report in reports:
        if multi_stream := report.get("multi_stream"):
            setting = (
                str(multi_stream[name]) for name in ("samples_per_query", "batch", "streams")
            )
            yield [report["artifact"], *setting, *_percentiles(multi_stream)]


def _servers(reports: Reports) -> Iterator[Sequence[str]]:
    for report in reports:
        if server := report.get("server"):
            yield [
                report["artifact"],
                f"{server['rate_per_s']:g}",
                f"{server['achieved_per_s']:.4g}",
                str(server["streams"]),
                f"{100 * server['utilization']:.0f}",
                f"{server['service_p50_ms']:.3g}",
                *_percentiles(server["latency"]),
                "overloaded" if server["overloaded"] else "",
            ]


def _sweep(reports: Reports, name: str) -> Iterator[Sequence[str]]:
    for report in reports:
        points = report.get(f"sweep_{name}") or []
        for point in points:
            yield [
                report["artifact"],
                str(point[name]),
                *(_number(point[key], 1) for key in ("p50_ms", "p90_ms")),
                f"{point['images_per_s']:.4g}",
                f"{point['images_per_s'] / points[0]['images_per_s']:.2f}",
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


def _percentiles(timing: Mapping[str, Any]) -> list[str]:
    return [_number(timing[name], 1) for name in ("p50_ms", "p90_ms", "p99_ms")]


def _number(value: float | None, unit: float) -> str:
    return DASH if value is None else _brief(value * unit, 3)


def _brief(value: float, digits: int) -> str:
    """So many significant digits, never an exponent."""
    return f"{float(f'{value:.{digits}g}'):.{digits + 6}g}"


def _signed(value: float) -> str:
    return f"{float(f'{value:.2g}'):+.8g}"

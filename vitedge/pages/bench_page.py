"""What `bench` measured as one page: every scenario run, and accuracy where it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vitedge import tables
from vitedge.pages import about, pareto, spread, sweeps
from vitedge.pages.measured import Report, count, interval, look, names, number, within
from vitedge.pages.shell import document, safe
from vitedge.pages.table import Kind, table
from vitedge.tables import DASH

Cell = Callable[[Report], str]


def render(reports: Sequence[Report], command: str) -> str:
    """The whole page, of merged reports; `command` is what was typed to measure them."""
    count = len(reports)
    title = f"{reports[0]['artifact'] if count == 1 else f'{count} artifacts'}: vitedge bench"
    return document(title, _body(title, reports, command))


def _body(title: str, reports: Sequence[Report], command: str) -> Iterable[str]:
    yield f"<h1>{safe(title)}</h1>"
    yield f'<p class="soft">{safe(_when(reports), 1000)}</p>'
    yield from about.warnings(reports)
    yield from (f"<p>{safe(line, 1000)}</p>" for line in tables.recommendations(reports))
    yield from _section("Latency of one run at a time", reports, "latency", LATENCY)
    runs = spread.timed(reports)
    yield from spread.distributions(runs)
    yield from spread.series(runs)
    yield from pareto.sections(reports)
    yield from sweeps.sections(reports)
    yield from _section("MultiStream", reports, "multi_stream", MULTI_STREAM)
    yield from _section("Server: images arrive at random", reports, "server", SERVER)
    yield from _section("Cold start", reports, "cold_start", COLD_START)
    yield from _section("Drift under load", reports, "drift", DRIFT)
    yield from _section("Energy", reports, "energy", ENERGY)
    costs = [{**r, "cost": True} for r in reports if "size" in r or "memory" in r]
    yield from _section("Size and memory", costs, "cost", COSTS)
    yield from about.machines(reports)
    yield from ("<section><h2>How to reproduce</h2>", *about.listing([command]), "</section>")


def _when(reports: Sequence[Report]) -> str:
    times = sorted({w for r in reports if (w := look(r, "conditions", "measured_at"))})
    noise = [n for r in reports if (n := look(r, "conditions", "noise_percent")) is not None]
    said = f"Measured {times[-1]}. " if times else ""
    return said + (f"This machine's own noise: {max(noise):.2g}%." if noise else "")


def _at(*keys: str, how: str = ".3g", unit: float = 1.0) -> Cell:
    return lambda report: number(look(report, *keys), how, unit)


def _count(*keys: str) -> Cell:
    return lambda report: count(look(report, *keys))


def _between(*keys: str, how: str = ".3g") -> Cell:
    *section, last = keys
    return lambda r: within(look(r, *keys), look(r, *section, f"{last}_ci"), how)


def _said(*keys: str) -> Cell:
    return lambda report: str(look(report, *keys) or DASH)


def _answer(*keys: str, yes: str = "yes", no: str = "no") -> Cell:
    return lambda r: DASH if (found := look(r, *keys)) is None else yes if found else no


def _range(*keys: str) -> Cell:
    return lambda report: interval(look(report, *keys))


LATENCY: dict[str, tuple[Kind, Cell]] = {
    "p50 ms": ("number", _at("latency", "p50_ms")),
    "p90 ms": ("number", _at("latency", "p90_ms")),
    "p99 ms": ("number", _at("latency", "p99_ms")),
    "mean ms": ("number", _at("latency", "mean_ms")),
    "runs": ("number", _count("latency", "n")),
    "batch": ("number", _count("latency", "batch")),
    "speed-up, 95%": ("number", _between("latency", "speedup", how=".2f")),
    "against": ("", _said("latency", "against")),
    "accuracy %": ("number", _at("accuracy", "artifact", how=".2f", unit=0.01)),
    "drop pp, 95%": (
        "number",
        lambda r: within(look(r, "accuracy", "drop_pp"), look(r, "accuracy", "drop_ci_pp"), "+.2f"),
    ),
}
MULTI_STREAM: dict[str, tuple[Kind, Cell]] = {
    "images a query": ("number", _count("multi_stream", "samples_per_query")),
    "streams": ("number", _count("multi_stream", "streams")),
    "threads each": ("number", _count("multi_stream", "threads")),
    "p50 ms": ("number", _at("multi_stream", "p50_ms")),
    "p90 ms": ("number", _at("multi_stream", "p90_ms")),
    "p99 ms": ("number", _at("multi_stream", "p99_ms")),
    "queries": ("number", _count("multi_stream", "n")),
}
SERVER: dict[str, tuple[Kind, Cell]] = {
    "asked images/s": ("number", _at("server", "rate_per_s", how=",.4g")),
    "served images/s": ("number", _at("server", "achieved_per_s", how=",.4g")),
    "p50 ms": ("number", _at("server", "latency", "p50_ms")),
    "p90 ms": ("number", _at("server", "latency", "p90_ms")),
    "p99 ms": ("number", _at("server", "latency", "p99_ms")),
    "run alone, p50 ms": ("number", _at("server", "service_p50_ms")),
    "busy %": ("number", _at("server", "utilization", how=".0f", unit=0.01)),
    "keeps up": ("", _answer("server", "overloaded", yes="no: overloaded", no="yes")),
}
COLD_START: dict[str, tuple[Kind, Cell]] = {
    "load ms": ("number", _at("cold_start", "load_ms")),
    "first inference ms": ("number", _at("cold_start", "first_inference_ms")),
    "process to result ms": ("number", _at("cold_start", "process_to_ready_ms")),
    "processes": ("number", _count("cold_start", "n")),
}
DRIFT: dict[str, tuple[Kind, Cell]] = {
    "seconds": ("number", _at("drift", "duration_s")),
    "% a minute": (
        "number",
        lambda r: within(
            look(r, "drift", "slope_percent_per_minute"), look(r, "drift", "slope_ci"), "+.2f"
        ),
    ),
    "gets slower": ("", _answer("drift", "slower")),
    "throttled": ("", _answer("drift", "throttled")),
    "°C": ("number", _range("drift", "temperature_c")),
}
ENERGY: dict[str, tuple[Kind, Cell]] = {
    "mJ a run": ("number", _at("energy", "joules_per_inference", unit=1e-3)),
    "watts": ("number", _at("energy", "watts")),
    "idle watts": ("number", _at("energy", "idle_watts")),
    "batch": ("number", _count("energy", "batch")),
    "meter": ("", _said("energy", "source")),
    "note": ("text", _said("energy", "note")),
}
COSTS: dict[str, tuple[Kind, Cell]] = {
    "size MB": ("number", _at("size", "bytes", unit=1e6)),
    "FP32 size MB": ("number", _at("size", "fp32_bytes", unit=1e6)),
    "peak RSS MB": ("number", _at("memory", "peak_rss_bytes", unit=1e6)),
    "GPU memory MB": ("number", _at("memory", "device_bytes", unit=1e6)),
}


def _section(
    title: str, reports: Sequence[Any], key: str, columns: dict[str, tuple[Kind, Cell]]
) -> Iterable[str]:
    """A table of the reports that hold the section `key`, without columns that hold nothing."""
    rows = [
        [name, *(cell(report) for _, cell in columns.values())]
        for name, report in zip(names(reports), reports, strict=True)
        if report.get(key)
    ]
    if not rows:
        return
    kinds: list[tuple[str, Kind]] = [("artifact", "head")]
    kinds += [(column, kind) for column, (kind, _) in columns.items()]
    held = [i for i in range(len(kinds)) if any(row[i] != DASH for row in rows)]
    yield f"<section><h2>{safe(title)}</h2>"
    shown = [[row[i] for i in held] for row in rows]
    yield from table(title, dict(kinds[i] for i in held), shown)
    yield "</section>"

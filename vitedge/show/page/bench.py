"""What `bench` measured as one page: every scenario run, and accuracy where it is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vitedge.core import report as core_report
from vitedge.show.page import latency, pareto, provenance, throughput
from vitedge.show.page.columns import (
    Columns,
    answered,
    at,
    between,
    counted,
    dropped,
    ranged,
    section,
    text,
)
from vitedge.show.page.report import Report, look, within
from vitedge.show.page.shell import document, safe
from vitedge.show.terminal import tables


def render(measured: Sequence[core_report.Report], command: str) -> str:
    """The whole page of the reports of what was measured now, by the `command` that was typed."""
    reports = tables.builtins(measured)
    count = len(reports)
    title = f"{reports[0]['artifact'] if count == 1 else f'{count} artifacts'}: vitedge bench"
    return document(title, _body(title, reports, tables.recommendations(measured), command))


def _body(
    title: str, reports: Sequence[Report], recommended: Sequence[str], command: str
) -> Iterable[str]:
    yield f"<h1>{safe(title)}</h1>"
    yield f'<p class="soft">{safe(_when(reports), 1000)}</p>'
    yield from provenance.warnings(reports)
    yield from (f"<p>{safe(line, 1000)}</p>" for line in recommended)
    yield from section("Latency of one run at a time", reports, "latency", LATENCY)
    runs = latency.timed(reports)
    yield from latency.distributions(runs)
    yield from latency.series(runs)
    yield from pareto.sections(reports)
    yield from throughput.sections(reports)
    yield from section("Cold start", reports, "cold_start", COLD_START)
    yield from section("Drift under load", reports, "drift", DRIFT)
    yield from _energy(reports)
    yield from section("Size and memory", reports, "size", COSTS)
    yield from provenance.machines(reports)
    yield from ("<section><h2>How to reproduce</h2>", *provenance.listing([command]), "</section>")


def _energy(reports: Sequence[Report]) -> Iterable[str]:
    """What a run takes; why that is not known, where no machine could tell."""
    if any(look(report, "energy", "joules_per_inference") is not None for report in reports):
        yield from section("Energy", reports, "energy", ENERGY)
        return
    for why in dict.fromkeys(look(report, "energy", "note") for report in reports):
        if why:
            yield f'<section><h2>Energy</h2><p class="soft">{safe(why, 1000)}</p></section>'


def _when(reports: Sequence[Report]) -> str:
    times = sorted({w for r in reports if (w := look(r, "conditions", "measured_at"))})
    noise = [n for r in reports if (n := look(r, "conditions", "noise_percent")) is not None]
    when = f"Measured {times[-1]}. " if times else ""
    return when + (f"This machine's own noise: {max(noise):.2g}%." if noise else "")


LATENCY: Columns = {
    "p50 ms": ("number", at("latency", "p50_ms")),
    "p90 ms": ("number", at("latency", "p90_ms")),
    "p99 ms": ("number", at("latency", "p99_ms")),
    "mean ms": ("number", at("latency", "mean_ms")),
    "runs": ("number", counted("latency", "n")),
    "batch": ("number", counted("latency", "batch")),
    "speed-up, 95%": ("number", between("latency", "speedup", how=".2f")),
    "against": ("", text("latency", "against")),
    "accuracy %": ("number", at("accuracy", "artifact", how=".2f", unit=0.01)),
    "drop pp, 95%": ("number", dropped),
}
COLD_START: Columns = {
    "load ms": ("number", at("cold_start", "load_ms")),
    "first inference ms": ("number", at("cold_start", "first_inference_ms")),
    "process to result ms": ("number", at("cold_start", "process_to_ready_ms")),
    "processes": ("number", counted("cold_start", "n")),
}
DRIFT: Columns = {
    "seconds": ("number", at("drift", "duration_s")),
    "% a minute": (
        "number",
        lambda r: within(
            look(r, "drift", "slope_percent_per_minute"), look(r, "drift", "slope_ci"), "+.2f"
        ),
    ),
    "gets slower": ("", answered("drift", "slower")),
    "throttled": ("", answered("drift", "throttled")),
    "°C": ("number", ranged("drift", "temperature_c")),
}
ENERGY: Columns = {
    "mJ a run": ("number", at("energy", "joules_per_inference", unit=1e-3)),
    "watts": ("number", at("energy", "watts")),
    "idle watts": ("number", at("energy", "idle_watts")),
    "batch": ("number", counted("energy", "batch")),
    "meter": ("", text("energy", "source")),
    "note": ("text", text("energy", "note")),
}
COSTS: Columns = {
    "size MB": ("number", at("size", "bytes", unit=1e6)),
    "FP32 size MB": ("number", at("size", "fp32_bytes", unit=1e6)),
    "peak RSS MB": ("number", at("memory", "peak_rss_bytes", unit=1e6)),
    "GPU memory MB": ("number", at("memory", "device_bytes", unit=1e6)),
}

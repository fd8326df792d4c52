"""What `bench` measured as one page: every scenario run, and accuracy where it is known."""

from __future__ import annotations

from collections.abc import Sequence

from vitedge.core.report import Report
from vitedge.show import columns, report_tables
from vitedge.show.page import latency, pareto, provenance
from vitedge.show.page.chart import SHAPES, Axis, Chart, linear, series, symbol
from vitedge.show.page.shell import render as render_template
from vitedge.show.settings import RATE_CI, Setting, points
from vitedge.show.table import PAGE
from vitedge.show.terminal import tables
from vitedge.show.text import number

AXES = {"batch": "images a run", "threads": "inference threads", "streams": "runs at a time"}
OFFLINE = "All images are there at once. Upright lines are intervals of 95%."

Section = tuple[str, list[str], list[Chart]]
"""(heading, notes, pictures)."""


def render(measured: Sequence[Report], command: str) -> str:
    """The whole page of the reports of what was measured now, by the `command` that was typed."""
    reports = columns.named(measured)
    conditions = [report.conditions for report in reports if report.conditions]
    count = len(reports)
    return render_template(
        "bench.html",
        title=f"{measured[0].artifact if count == 1 else f'{count} artifacts'}: vitedge bench",
        when=_when(reports),
        warnings=dict.fromkeys(line for state in conditions for line in state.warnings),
        recommended=tables.recommendations(measured),
        proof=report_tables.proof(reports, "Accuracy and latency"),
        distribution=latency.distributions(reports),
        series=latency.series(reports),
        pareto=pareto.pictures(measured),
        throughput=_throughput(reports),
        settings=report_tables.throughput(reports, "Throughput"),
        tables=[
            report_tables.outputs(reports, "Every output against FP32's"),
            report_tables.end_to_end(reports, "End to end, from image files to outputs"),
            *report_tables.bench(reports),
        ],
        energy_notes=dict.fromkeys(r.energy.note for r in reports if r.energy and r.energy.note),
        machines=provenance.machines(reports),
        command=command,
    )


def _when(reports: Sequence[Report]) -> str:
    conditions = [report.conditions for report in reports if report.conditions]
    if not conditions:
        return ""
    noise = max(state.noise_percent for state in conditions)
    return (
        f"Measured {max(state.measured_at for state in conditions)}. "
        f"This machine's own noise: {number(noise, '.2g')}%."
    )


def _throughput(reports: Sequence[Report]) -> list[Section]:
    """Offline and each sweep that was measured."""
    settings = points(reports)
    parts: list[Section] = []
    if offline := [setting for setting in settings if setting.scenario == "offline"]:
        notes = [report.offline.note for report in reports if report.offline]
        several = len({setting.batch for setting in offline}) > 1
        across, apart = ("batch", "streams") if several else ("streams", "batch")
        charts = _pictures(offline, across, "images a second", apart)
        parts.append(("Offline", [OFFLINE, *filter(None, dict.fromkeys(notes))], charts))
    for across in ("batch", "threads"):
        swept = [setting for setting in settings if setting.scenario == f"sweep-{across}"]
        if charts := _pictures(swept, across, "images a second, at p50"):
            parts.append((f"{across.capitalize()} sweep", [], charts))
    return parts


def _pictures(settings: Sequence[Setting], across: str, up: str, apart: str = "") -> list[Chart]:
    """A curve over `across` for each artifact and each value of `apart`, as many to a picture as
    can be told apart; a single setting draws none."""
    curves: dict[str, dict[int, Setting]] = {}
    for setting in settings:
        name = setting.report.artifact
        name += f", {apart} {getattr(setting, apart)}" if apart else ""
        curves.setdefault(name, {})[getattr(setting, across)] = setting
    drawn = [(name, sorted(curve.items())) for name, curve in curves.items() if len(curve) > 1]
    if not drawn:
        return []
    tried = sorted({value for _, curve in drawn for value, _ in curve})
    ticks = [(float(value), f"{value:,}") for value in tried]
    x = Axis(AXES[across], tried[0] / 1.2, tried[-1] * 1.2, ticks, log=True)
    rates = [(s.images_per_s, *(s.images_per_s_ci or ())) for _, curve in drawn for _, s in curve]
    y = linear(up, [0.0, *(rate for ends in rates for rate in ends)])
    charts = []
    for start in range(0, len(drawn), len(SHAPES)):
        group = drawn[start : start + len(SHAPES)]
        legend = [(symbol(*series(i)), name) for i, (name, _) in enumerate(group)]
        chart = Chart(x, y, f"{up} against {AXES[across]}; the table below has every value", legend)
        for i, (_, curve) in enumerate(group):
            css = f"line c{i}"
            chart.draw(chart.line([(value, s.images_per_s) for value, s in curve], css))
            for value, s in curve:
                whisker = chart.whisker(value, s.images_per_s_ci, css)
                mark = chart.mark(value, s.images_per_s, *series(i))
                chart.draw(*whisker, mark, title=_title(s))
        charts.append(chart)
    return charts


def _title(setting: Setting) -> str:
    p50 = f", p50 {number(setting.timing.p50_ms)} ms" if setting.timing else ""
    return (
        f"{setting.report.artifact}, batch {setting.batch}, {setting.threads} threads, "
        f"{setting.streams} streams: {RATE_CI.cell(setting, PAGE)} images/s{p50}"
    )

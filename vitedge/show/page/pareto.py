"""Accuracy against latency: which artifacts no other one beats in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitedge.core.report import Report
from vitedge.show.columns import METRIC, METRICS, P50, machine
from vitedge.show.page.chart import Chart, key, linear, logarithmic, series, symbol
from vitedge.show.table import PAGE, Column, Table
from vitedge.show.text import number

SERIES = {"fp32": 0, "int8": 1, "fp16": 2, "bf16": 3, "fp8": 4}
"""By precision; others are the next."""


@dataclass(frozen=True)
class ParetoPoint:
    """One artifact as a point."""

    name: str
    precision: str
    latency_ms: float
    accuracy: float
    """Percent."""
    interval: tuple[float, float] | None = None
    """Of the accuracy, as far as that of the drop from FP32 tells."""
    place: int = 0
    """Its number in the picture, by latency from 1."""
    best: bool = False
    """No other is better in both."""


_Point = Column[ParetoPoint]
INTERVAL = _Point("interval", "interval", "", lambda point: point.interval, ".2f", kind="interval")
COLUMNS: tuple[Column[ParetoPoint], ...] = (
    _Point("place", "#", "", lambda point: point.place),
    _Point("artifact", "artifact", "", lambda point: point.name, kind="head"),
    _Point("precision", "precision", "", lambda point: point.precision.upper(), kind="word"),
    METRIC.read(lambda point: point.accuracy / 100),
    INTERVAL,
    P50.read(lambda point: point.latency_ms),
    _Point("best", "on the line", "", lambda point: point.best, kind="word"),
)


def pictures(reports: Sequence[Report]) -> list[tuple[str, Chart, Table[ParetoPoint]]]:
    """A picture for each set of artifacts that compare, its heading, and what its numbers mean.

    They share metric, images, machine and batch. FP32's part of the reports is a point, too.
    """
    groups: defaultdict[tuple[str, str], dict[str, ParetoPoint]] = defaultdict(dict)
    references: list[tuple[tuple[str, str], ParetoPoint]] = []
    for report in reports:
        accuracy, latency = report.accuracy, report.latency
        if accuracy is None or latency is None:
            continue
        threads = f", {report.host.threads} threads" if report.host else ""
        where = f"{accuracy.data}, {machine(report)}{threads}, batch {latency.batch}"
        group, fp32, drop, bounds = (METRICS[accuracy.metric], where), None, None, None
        if accuracy.fp32 is not None:
            fp32, drop = 100 * accuracy.fp32, accuracy.drop_ci_pp
        if fp32 is not None and latency.fp32:
            name = f"{report.model}-{report.target}-fp32"
            references.append((group, ParetoPoint(name, "fp32", latency.fp32.p50_ms, fp32)))
        if fp32 is not None and drop and report.precision != "fp32":
            bounds = (max(0.0, fp32 - drop[1]), min(100.0, fp32 - drop[0]))
        figures = latency.p50_ms, 100 * accuracy.artifact, bounds
        point = ParetoPoint(report.artifact, report.precision, *figures)
        groups[group][point.name] = point
    for group, point in references:
        groups[group].setdefault(point.name, point)
    drawn = []
    for (metric, where), by_name in groups.items():
        if len(by_name) > 1:
            points = ranked([*by_name.values()])
            columns = [replace(c, title=metric) if c.key == METRIC.key else c for c in COLUMNS]
            table = Table("Accuracy against latency", columns, points)
            drawn.append((f"{metric}: {where}", _picture(points, metric), table))
    return drawn


def ranked(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """By latency, with their numbers, and which no other is better than in both."""
    ordered = sorted(points, key=lambda point: (point.latency_ms, -point.accuracy))
    numbered: list[ParetoPoint] = []
    highest = -1.0
    for place, point in enumerate(ordered, 1):
        numbered.append(replace(point, place=place, best=point.accuracy > highest))
        highest = max(highest, point.accuracy)
    return numbered


def _picture(points: Sequence[ParetoPoint], metric: str) -> Chart:
    kinds = [kind for kind in SERIES if any(point.precision == kind for point in points)]
    legend = [(symbol(*series(SERIES[kind])), kind.upper()) for kind in kinds]
    latencies = [point.latency_ms for point in points]
    low, high = min(latencies), max(latencies)
    axis = logarithmic if high > 5 * low else linear
    ends = latencies if high > 5 * low else [0.95 * low, 1.05 * high]
    shown = [value for p in points for value in (p.accuracy, *(p.interval or ()))]
    around = max(0.0, min(shown) - 0.25), min(100.0, max(shown) + 0.25)  # noise is no cliff
    chart = Chart(
        axis("p50 latency, ms", ends),
        linear(f"{metric}, %", around),
        f"{metric} in percent against p50 latency of {len(points)} artifacts; the table below "
        "has every value",
        [*legend, (key("line front"), "none is better in both")],
    )
    steps: list[tuple[float, float]] = []
    for point in points:
        if point.best:
            steps += [(point.latency_ms, steps[-1][1])] if steps else []
            steps.append((point.latency_ms, point.accuracy))
    chart.draw(chart.line(steps, "line front"))
    for point in points:
        x, y, bounds = point.latency_ms, point.accuracy, point.interval
        css, shape = series(SERIES.get(point.precision, len(SERIES)))
        interval = f" ({INTERVAL.cell(point, PAGE)}%)" if bounds else ""
        chart.draw(
            *chart.whisker(x, bounds, f"line c{shape}"),
            chart.mark(x, y, css, shape),
            chart.text(x, y, f"{point.place}", shift=(8, -8 if point.place % 2 else 16)),
            title=f"{point.place}. {point.name}: {number(y, '.2f')}%, {number(x)} ms{interval}",
        )
    return chart

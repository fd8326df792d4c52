"""How latency is spread, and how it went on: a strip for each artifact, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vitedge.core.measurements import Timing
from vitedge.core.report import Report
from vitedge.show.columns import TIMING, rival
from vitedge.show.page.chart import Chart, Legend, Point, key, linear, logarithmic, strips
from vitedge.show.table import PAGE
from vitedge.show.text import DASH, number

STRIP_PX = 88
BINS = 96
MOST_PERCENT = 100.0
"""A series is cut off that far from its median."""

Run = tuple[str, Timing, Timing | None]
"""An artifact's name and runs, and those of what it was timed in turn with."""


def distributions(reports: Sequence[Report]) -> Chart | None:
    """Latency of every run as a histogram, with p50, p90 and p99; None without runs."""
    runs = _timed(reports)
    if not runs:
        return None
    timings = [timing for _, *both in runs for timing in both if timing]
    quantiles = [timing.distribution.quantiles_ms for timing in timings]
    low, high = 0.98 * min(q[0] for q in quantiles), 1.02 * max(q[-2] for q in quantiles)
    axis = (logarithmic if high > 4 * low else linear)("latency of a run, ms", [low, high])
    spaced = np.geomspace if axis.log else np.linspace
    edges: list[float] = spaced(axis.low, axis.high, BINS + 1).tolist()
    label = f"Distribution of latency of {len(runs)} artifacts; the table has p50, p90 and p99"
    chart = strips(axis, len(runs), label, STRIP_PX, _legend("bar c0", reports))
    for strip, (name, timing, other) in enumerate(reversed(runs)):
        shares = [_shares(t, edges) for t in (timing, other) if t]
        tallest = max(float(share.max()) for share in shares)
        marks = [
            _outline(chart, edges, 0.5 * share / tallest, strip, css)
            for share, css in zip(shares, ("bar c0", "line c1"), strict=False)
        ]
        marks += [
            chart.line([(ms, strip), (ms, strip + 0.66)], "line c0 thin")
            for ms in (timing.p50_ms, timing.p90_ms, timing.p99_ms)
            if ms is not None and ms <= axis.high
        ]
        p50 = chart.text(timing.p50_ms, strip + 0.66, f"p50 {number(timing.p50_ms)}", shift=(4, 8))
        chart.draw(*marks, p50, chart.text(axis.low, strip + 1, name), title=_title(name, timing))
    return chart


def series(reports: Sequence[Report]) -> Chart | None:
    """Latency over time, relative to the median of the run; None without runs."""
    runs = [run for run in _timed(reports) if len(run[1].distribution.series) > 1]
    if not runs:
        return None
    last = max(timing.distribution.series[-1][0] for _, timing, _ in runs)
    far = max(abs(change) for _, timing, _ in runs for _, change in _changes(timing))
    half = min(MOST_PERCENT, max(5.0, float(np.ceil(far / 5) * 5)))
    axis = linear("seconds since timing began", [0.0, last])
    label = f"Latency over time of {len(runs)} artifacts, in percent off the median of each"
    legend, height = _legend("line c0", reports), f"±{half:g}%"
    chart = strips(axis, len(runs), label, STRIP_PX, legend, height)
    for strip, (name, timing, other) in enumerate(reversed(runs)):
        middle = strip + 0.4
        marks = [chart.line([(axis.low, middle), (axis.high, middle)], "grid")]
        for drawn, css in ((other, "line c1 thin"), (timing, "line c0")):
            if drawn and len(drawn.distribution.series) > 1:
                changes = _changes(drawn)
                line = [(t, middle + 0.38 * max(-1, min(1, c / half))) for t, c in changes]
                marks.append(chart.line(line, css))
        chart.draw(*marks, chart.text(axis.low, strip + 1, name), title=_title(name, timing))
    return chart


def _timed(reports: Sequence[Report]) -> list[Run]:
    """Those of the reports that hold a latency."""
    timed = [(report.artifact, report.latency) for report in reports]
    return [(name, runs, rival(runs)) for name, runs in timed if runs and runs.p50_ms > 0]


def _shares(timing: Timing, edges: Sequence[float]) -> Any:
    """Share of the runs between each two of `edges`, from the 101 quantiles."""
    quantiles = sorted(timing.distribution.quantiles_ms)
    return np.diff(np.interp(edges, quantiles, np.linspace(0, 1, len(quantiles))))


def _outline(chart: Chart, edges: Sequence[float], shares: Any, strip: int, css: str) -> Markup:
    """The tops of the bars, from the first to the last that can be seen."""
    visible = np.flatnonzero(shares >= 0.01 * shares.max())
    points: list[Point] = []
    for left in range(visible[0], visible[-1] + 1):
        points += [(edge, strip + float(shares[left])) for edge in edges[left : left + 2]]
    return chart.line([(points[0][0], strip), *points, (points[-1][0], strip)], css)


def _changes(timing: Timing) -> list[tuple[float, float]]:
    """(seconds, percent off the median)."""
    series = timing.distribution.series
    return [(seconds, 100 * (ms / timing.p50_ms - 1)) for seconds, ms in series if seconds >= 0]


def _legend(css: str, reports: Sequence[Report]) -> Legend:
    rivals = {r.latency.against for r in reports if r.latency and rival(r.latency)}
    name = "FP32" if rivals == {"fp32"} else "what it was timed against"
    others = [(key("line c1"), f"{name}, in turn")] if rivals else []
    return [(key(css), "the artifact"), *others]


def _title(name: str, timing: Timing) -> str:
    cells = [(column.title, column.cell(timing, PAGE)) for column in TIMING]
    parts = ", ".join(f"{title} {cell}" for title, cell in cells if cell != DASH)
    ends = " … ".join(number(timing.distribution.quantiles_ms[i]) for i in (0, -1))
    return f"{name}: {parts}, all {ends} ms, {timing.n:,} runs"

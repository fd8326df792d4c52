"""How latency is spread, and how it went on: a strip for each artifact, one above the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitedge.show.page.chart import Frame, Point, hover, legend, linear, logarithmic, strips
from vitedge.show.page.report import Report, look, names, number

STRIP_PX = 88
BINS = 96
MOST_PERCENT = 100.0
"""A series is cut off that far from its median."""


@dataclass(frozen=True)
class TimedRuns:
    """One artifact's runs, and those of what it was timed in turn with."""

    name: str
    timing: dict[str, Any]
    """A `Timing`."""
    rival: dict[str, Any] | None
    against: str


def timed(reports: Sequence[Report]) -> list[TimedRuns]:
    """Those of the reports that hold a latency."""
    runs = []
    for report, name in zip(reports, names(reports), strict=True):
        latency = look(report, "latency")
        if latency is None or not latency["p50_ms"] > 0:
            continue
        rival = latency["fp32"] or latency["other"]
        runs.append(TimedRuns(name, latency, rival, latency["against"] or ""))
    return runs


def distributions(runs: Sequence[TimedRuns]) -> Iterable[str]:
    """Latency of every run as a histogram, with p50, p90 and p99; nothing without runs."""
    if not runs:
        return
    timings = [timing for run in runs for timing in (run.timing, run.rival) if timing]
    quantiles = [timing["distribution"]["quantiles_ms"] for timing in timings]
    low, high = 0.98 * min(q[0] for q in quantiles), 1.02 * max(q[-2] for q in quantiles)
    axis = (logarithmic if high > 4 * low else linear)("latency of a run, ms", [low, high])
    label = f"Distribution of latency of {len(runs)} artifacts; the table has p50, p90 and p99"
    frame = strips(axis, len(runs), "", label, STRIP_PX)
    edges = [axis.low + (axis.high - axis.low) * i / BINS for i in range(BINS + 1)]
    if axis.log:
        edges = list(np.geomspace(axis.low, axis.high, BINS + 1))
    drawn = enumerate(reversed(runs))
    marks = [_histogram(frame, strip, run, edges) for strip, run in drawn]
    yield '<section><h2>Latency distribution</h2><p class="soft">Share of the runs; upright lines '
    yield "are p50, p90 and p99, where there were enough runs. The slowest 1% may lie outside.</p>"
    yield _legend(runs, bars=True)
    yield from frame.svg(marks)
    yield "</section>"


def _histogram(frame: Frame, strip: int, run: TimedRuns, edges: Sequence[float]) -> str:
    """The runs of one artifact, and those beside it as an outline of the same scale."""
    artifact, rival = (_shares(t, edges) if t else None for t in (run.timing, run.rival))
    tallest = max(float(shares.max()) for shares in (artifact, rival) if shares is not None)
    drawn = [
        _outline(frame, edges, 0.5 * shares / tallest, strip, css)
        for shares, css in ((artifact, "bar c0"), (rival, "line c1"))
        if shares is not None
    ]
    known = [run.timing.get(key) for key in ("p50_ms", "p90_ms", "p99_ms")]
    drawn += [
        frame.line([(at, strip), (at, strip + 0.66)], "line c0 thin")
        for at in known
        if at is not None and at <= frame.x.high
    ]
    p50 = run.timing["p50_ms"]
    drawn.append(frame.text(p50, strip + 0.66, f"p50 {number(p50)}", shift=(4, 8)))
    drawn.append(frame.text(frame.x.low, strip + 1, run.name, shift=(6, 18)))
    return hover(_title(run), *drawn)


def _shares(timing: dict[str, Any], edges: Sequence[float]) -> Any:
    """Share of the runs between each two of `edges`, from the 101 quantiles."""
    quantiles = sorted(timing["distribution"]["quantiles_ms"])
    return np.diff(np.interp(edges, quantiles, np.linspace(0, 1, len(quantiles))))


def _outline(frame: Frame, edges: Sequence[float], shares: Any, strip: int, css: str) -> str:
    """The tops of the bars, from the first to the last that can be seen."""
    seen = np.flatnonzero(shares >= 0.01 * shares.max())
    points: list[Point] = []
    for left, share in zip(range(seen[0], seen[-1] + 1), shares[seen[0] :].tolist(), strict=False):
        points += [(edges[left], strip + share), (edges[left + 1], strip + share)]
    return frame.line([(points[0][0], strip), *points, (points[-1][0], strip)], css)


def series(runs: Sequence[TimedRuns]) -> Iterable[str]:
    """Latency over time, relative to the median of the run; nothing without runs."""
    plotted = [run for run in runs if len(run.timing["distribution"]["series"]) > 1]
    if not plotted:
        return
    last = max(run.timing["distribution"]["series"][-1][0] for run in plotted)
    far = max(abs(change) for run in plotted for _, change in _changes(run.timing))
    half = min(MOST_PERCENT, max(5.0, float(np.ceil(far / 5) * 5)))
    axis = linear("seconds since timing began", [0.0, last])
    label = f"Latency over time of {len(plotted)} artifacts, in percent off the median of each"
    frame = strips(axis, len(plotted), f"±{half:g}%", label, STRIP_PX)
    marks = []
    for strip, run in enumerate(reversed(plotted)):
        middle = strip + 0.4
        drawn = [frame.line([(axis.low, middle), (axis.high, middle)], "grid")]
        for timing, css in ((run.rival, "line c1 thin"), (run.timing, "line c0")):
            if timing and len(timing["distribution"]["series"]) > 1:
                changes = _changes(timing)
                points = [(t, middle + 0.38 * max(-1, min(1, c / half))) for t, c in changes]
                drawn.append(frame.line(points, css))
        drawn.append(frame.text(axis.low, strip + 1, run.name, shift=(6, 18)))
        marks.append(hover(_title(run), *drawn))
    yield '<section><h2>Latency over time</h2><p class="soft">Up is slower; the height of a '
    yield f"strip is ±{half:g}% of its median. What all of them do at once is the machine; a line "
    yield "that climbs is a device that gets hot.</p>"
    yield _legend(plotted, bars=False)
    yield from frame.svg(marks)
    yield "</section>"


def _changes(timing: dict[str, Any]) -> list[tuple[float, float]]:
    """(seconds, percent off the median)."""
    points, p50 = timing["distribution"]["series"], timing["p50_ms"]
    return [(seconds, 100 * (ms / p50 - 1)) for seconds, ms in points if seconds >= 0]


def _legend(runs: Sequence[TimedRuns], *, bars: bool) -> str:
    mark = (
        '<path class="bar c0" d="M2 3h26v11h-26Z"/>'
        if bars
        else '<path class="line c0" d="M0 8H30"/>'
    )
    entries = [(mark, "the artifact")]
    rivals = {run.against for run in runs if run.rival}
    if rivals:
        name = "FP32" if rivals == {"fp32"} else "what it was timed against"
        entries.append(('<path class="line c1" d="M0 8H30"/>', f"{name}, in turn"))
    return legend(entries)


def _title(run: TimedRuns) -> str:
    keys = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms", "mean": "mean_ms"}
    timing = run.timing
    parts = [f"{name} {number(timing[key])}" for name, key in keys.items() if timing.get(key)]
    quantiles = timing["distribution"]["quantiles_ms"]
    ends = f"{number(quantiles[0])} … {number(quantiles[-1])}"
    return f"{run.name}: {', '.join(parts)}, all {ends} ms, {timing['n']:,} runs"

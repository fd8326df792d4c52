"""What more images a run, more threads or more streams bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vitedge.show.page.chart import COLOURS, Axis, Frame, hover, legend, linear, symbol
from vitedge.show.page.report import Report, interval, look, names, number, within
from vitedge.show.page.shell import safe
from vitedge.show.page.table import folded

_AXES = {"batch": "images a run", "threads": "inference threads", "streams": "runs at a time"}

Setting = tuple[int, float, tuple[float, float] | None, str]
"""(value of the setting, result, its interval, what the mouse shows)."""


@dataclass(frozen=True)
class Curve:
    """One line."""

    name: str
    points: list[Setting]


def sections(reports: Sequence[Report]) -> Iterable[str]:
    """Offline throughput, batch and threads, each where it was measured."""
    labelled = list(zip(names(reports), reports, strict=True))
    yield from _offline(labelled)
    batches = [(name, look(report, "sweep_batch") or ()) for name, report in labelled]
    yield from _sweep(batches, "batch", "Batch sweep")
    threads = [(name, look(report, "sweep_threads") or ()) for name, report in labelled]
    yield from _sweep(threads, "threads", "Threads sweep")


def _sweep(
    measured: Sequence[tuple[str, Sequence[dict[str, Any]]]], setting: str, title: str
) -> Iterable[str]:
    swept = [(name, points) for name, points in measured if points]
    if not swept:
        return
    curves = [
        Curve(name, [(p[setting], p["images_per_s"], None, _title(name, p)) for p in points])
        for name, points in swept
    ]
    rows = [
        (
            *(name, f"{p['batch']}", f"{p['threads']}", number(p["images_per_s"], ",.4g")),
            *(number(p["p50_ms"]), number(p.get("p90_ms")), f"{p['n']:,}"),
        )
        for name, points in swept
        for p in points
    ]
    yield f"<section><h2>{title}</h2>"
    yield from _pictures(curves, _AXES[setting], "images a second, at p50")
    yield from folded(
        title,
        {
            **{"artifact": "head", "batch": "number", "threads": "number", "images/s": "number"},
            **{"p50 ms": "number", "p90 ms": "number", "runs": "number"},
        },
        rows,
    )
    yield "</section>"


def _title(name: str, point: dict[str, Any]) -> str:
    return (
        f"{name}, batch {point['batch']}, {point['threads']} threads: "
        f"{number(point['images_per_s'], ',.4g')} images/s, p50 {number(point['p50_ms'])} ms"
    )


def _offline(labelled: Sequence[tuple[str, Report]]) -> Iterable[str]:
    measured = [(name, look(report, "offline", "points") or ()) for name, report in labelled]
    points = [point for _, settings in measured for point in settings]
    if not points:
        return
    batches = len({point["batch"] for point in points}) > 1
    across, apart = ("batch", "streams") if batches else ("streams", "batch")
    curves = [
        _throughput(name, [p for p in settings if p[apart] == value], across, apart)
        for name, settings in measured
        for value in sorted({p[apart] for p in settings})
    ]
    rows = [
        (
            *(name, f"{p['batch']}", f"{p['streams']}", f"{p['threads']}"),
            *(number(p["images_per_s"], ",.4g"), interval(p["images_per_s_ci"], ",.4g")),
            f"{p['n']:,}",
        )
        for name, settings in measured
        for p in settings
    ]
    yield "<section><h2>Offline: throughput</h2>"
    yield '<p class="soft">All images are there at once. Upright lines are intervals of 95%.</p>'
    for why in dict.fromkeys(look(report, "offline", "note") for _, report in labelled):
        yield f'<p class="soft">{safe(why, 1000)}</p>' if why else ""
    yield from _pictures(curves, _AXES[across], "images a second")
    yield from folded(
        "Offline",
        {
            **{"artifact": "head", "batch": "number", "streams": "number", "threads": "number"},
            **{"images/s": "number", "95% interval": "number", "runs": "number"},
        },
        rows,
    )
    yield "</section>"


def _throughput(name: str, points: Sequence[dict[str, Any]], across: str, apart: str) -> Curve:
    """The points of one batch or number of streams (`apart`), over the other."""
    label = f"{name}, {apart} {points[0][apart]}"
    settings: list[Setting] = []
    for point in points:
        value, bounds = point["images_per_s"], point["images_per_s_ci"]
        title = f"{label}, {across} {point[across]}: {within(value, bounds, ',.4g')} images/s"
        settings.append((point[across], value, (bounds[0], bounds[1]), title))
    return Curve(label, settings)


def _pictures(curves: Sequence[Curve], across: str, up: str) -> Iterable[str]:
    """The curves, as many to a picture as can be told apart; a single setting draws none."""
    drawn = [curve for curve in curves if len(curve.points) > 1]
    if not drawn:
        return
    x = _doubling(across, [point[0] for curve in drawn for point in curve.points])
    y = linear(up, [0.0, *(v for c in drawn for _, r, i, _ in c.points for v in (r, *(i or ())))])
    for start in range(0, len(drawn), COLOURS):
        group = drawn[start : start + COLOURS]
        frame = Frame(x, y, f"{up} against {across}; the table below has every value")
        yield legend([(symbol(i, 15, 8), curve.name) for i, curve in enumerate(group)])
        yield from frame.svg(mark for i, c in enumerate(group) for mark in _curve(frame, c, i))


def _doubling(title: str, values: Sequence[int]) -> Axis:
    """A logarithmic axis with a tick at every setting that was tried."""
    settings = sorted(set(values))
    low, high = settings[0] / 1.2, settings[-1] * 1.2
    return Axis(title, low, high, tuple((float(s), f"{s:,}") for s in settings), log=True)


def _curve(frame: Frame, curve: Curve, series: int) -> Iterable[str]:
    css = f"line c{series}"
    yield frame.line([(x, y) for x, y, _, _ in sorted(curve.points, key=lambda p: p[0])], css)
    for x, y, bounds, title in curve.points:
        whisker = [frame.line([(x, bounds[0]), (x, bounds[1])], css)] if bounds else []
        yield hover(title, *whisker, frame.mark(x, y, series))

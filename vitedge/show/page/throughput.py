"""What more images a run, more threads or more streams bring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitedge.show import throughput
from vitedge.show.page.chart import COLOURS, Axis, Frame, hover, legend, linear, symbol
from vitedge.show.page.columns import held
from vitedge.show.page.report import Report, interval, look, names, number, within
from vitedge.show.page.shell import safe
from vitedge.show.page.table import Kind, folded

_AXES = {"batch": "images a run", "threads": "inference threads", "streams": "runs at a time"}

Point = Mapping[str, Any]
"""Of `vitedge.show.throughput.points`, and the artifact's name."""
Setting = tuple[int, float, tuple[float, float] | None, str]
"""(value of the setting, result, its interval, what the mouse shows)."""


@dataclass(frozen=True)
class Curve:
    """One line."""

    name: str
    points: list[Setting]


def sections(reports: Sequence[Report]) -> Iterable[str]:
    """A picture of Offline and of each sweep that was measured, and one table of all settings."""
    points = [
        {"artifact": name, **point}
        for name, report in zip(names(reports), reports, strict=True)
        for point in throughput.points(report)
    ]
    if not points:
        return
    yield "<section><h2>Throughput</h2>"
    yield from _offline([p for p in points if p["scenario"] == "offline"], reports)
    for setting in ("batch", "threads"):
        swept = [p for p in points if p["scenario"] == f"sweep-{setting}"]
        pictures = [*_pictures(_curves(swept, setting), _AXES[setting], "images a second, at p50")]
        yield from (f"<h3>{setting.capitalize()} sweep</h3>", *pictures) if pictures else ()
    yield from folded("Throughput", *held(COLUMNS, [_row(point) for point in points]))
    yield "</section>"


def _offline(points: Sequence[Point], reports: Sequence[Report]) -> Iterable[str]:
    if not points:
        return
    yield "<h3>Offline</h3>"
    yield '<p class="soft">All images are there at once. Upright lines are intervals of 95%.</p>'
    for why in dict.fromkeys(look(report, "offline", "note") for report in reports):
        yield f'<p class="soft">{safe(why, 1000)}</p>' if why else ""
    batches = len({point["batch"] for point in points}) > 1
    across, apart = ("batch", "streams") if batches else ("streams", "batch")
    yield from _pictures(_curves(points, across, apart), _AXES[across], "images a second")


def _curves(points: Sequence[Point], across: str, apart: str = "") -> list[Curve]:
    """A curve over the setting `across` for each artifact, and for each value of `apart`."""
    settings: dict[str, list[Setting]] = {}
    for point in points:
        name = f"{point['artifact']}, {apart} {point[apart]}" if apart else point["artifact"]
        bounds = point.get("images_per_s_ci")
        settings.setdefault(name, []).append(
            (
                point[across],
                point["images_per_s"],
                (bounds[0], bounds[1]) if bounds else None,
                _title(point),
            )
        )
    return [Curve(*curve) for curve in settings.items()]


def _title(point: Point) -> str:
    rate = within(point["images_per_s"], point.get("images_per_s_ci"), ",.4g")
    p50 = f", p50 {number(point['p50_ms'])} ms" if "p50_ms" in point else ""
    return (
        f"{point['artifact']}, batch {point['batch']}, {point['threads']} threads, "
        f"{point['streams']} streams: {rate} images/s{p50}"
    )


COLUMNS: dict[str, Kind] = {
    **{"artifact": "head", "scenario": "short"},
    **{"batch": "number", "threads": "number", "streams": "number"},
    **{"images/s": "number", "95% interval": "number"},
    **{"p50 ms": "number", "p90 ms": "number", "runs": "number"},
}


def _row(point: Point) -> tuple[str, ...]:
    return (
        *(point["artifact"], point["scenario"]),
        *(f"{point[setting]}" for setting in ("batch", "threads", "streams")),
        number(point["images_per_s"], ",.4g"),
        interval(point.get("images_per_s_ci"), ",.4g"),
        *(number(point.get("p50_ms")), number(point.get("p90_ms")), f"{point['n']:,}"),
    )


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

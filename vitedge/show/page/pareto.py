"""Accuracy against latency: which artifacts no other one beats in both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitedge.show.page.chart import (
    RIGHT,
    WIDTH,
    Axis,
    Frame,
    hover,
    legend,
    linear,
    logarithmic,
    symbol,
)
from vitedge.show.page.report import Report, interval, look, machine, names, number
from vitedge.show.page.shell import safe
from vitedge.show.page.table import table
from vitedge.show.terminal.tables import METRICS

MOST_LABELS = 12
"""Points with their names beside them; more have numbers."""
_SERIES = {"fp32": 0, "int8": 1, "fp16": 2}
_ADVANCE, _LINE = 9.0, 18.0
"""Pixels of a character on a phone, where text is largest."""


@dataclass(frozen=True)
class ParetoPoint:
    """One artifact as a point."""

    name: str
    precision: str
    latency_ms: float
    accuracy: float
    """Percent."""
    interval: tuple[float, float] | None
    """Of the accuracy, as far as that of the drop from FP32 tells."""


def sections(reports: Sequence[Report]) -> Iterable[str]:
    """A picture for each set of artifacts that compare: same images, machine and batch."""
    all_reports = [*reports, *_references(reports)]
    groups: defaultdict[tuple[str, ...], list[ParetoPoint]] = defaultdict(list)
    for report, name in zip(all_reports, names(all_reports), strict=True):
        if point := _point(report, name):
            groups[_compared(report)].append(point)
    comparable = [(key, points) for key, points in groups.items() if len(points) > 1]
    if not comparable:
        return
    yield "<section><h2>Accuracy against latency</h2>"
    yield '<p class="soft">Up and to the left is better; no artifact beats those on the line in '
    yield "both. An upright line is the interval of the accuracy lost against FP32.</p>"
    for key, points in comparable:
        yield f"<h3>{safe(f'{key[0]}: ' + ', '.join(key[1:]))}</h3>"
        yield from _picture(sorted(points, key=lambda p: p.latency_ms), key[0])
    yield "</section>"


def _compared(report: Report) -> tuple[str, ...]:
    """What artifacts must share to be compared, for people."""
    metric = METRICS.get(report["accuracy"]["metric"], "accuracy")
    threads = look(report, "host", "threads")
    where = f"{machine(report)}, {threads} threads" if threads else machine(report)
    batch = look(report, "latency", "batch") or 1
    return metric, str(report["accuracy"]["data"]), where, f"batch {batch}"


def _references(reports: Sequence[Report]) -> list[Report]:
    """FP32's part of the reports, as reports of its own where there are none."""
    references: dict[tuple[str, ...], Report] = {}
    for report in reports:
        accuracy, timing = look(report, "accuracy", "fp32"), look(report, "latency", "fp32")
        if accuracy is not None and timing:
            name = f"{report['model']}-{report['target']}-fp32"
            measured = {"accuracy": {**report["accuracy"], "artifact": accuracy}}
            measured["latency"] = {**timing, "batch": report["latency"]["batch"]}
            reference = {**report, **measured, "artifact": name, "precision": "fp32"}
            references.setdefault((name, *_compared(reference)), reference)
    present = {
        (str(report["artifact"]), *_compared(report))
        for report in reports
        if look(report, "accuracy") and look(report, "latency")
    }
    return [report for key, report in references.items() if key not in present]


def _point(report: Report, name: str) -> ParetoPoint | None:
    accuracy, latency = look(report, "accuracy", "artifact"), look(report, "latency", "p50_ms")
    if accuracy is None or latency is None:
        return None
    fp32, drop = look(report, "accuracy", "fp32"), look(report, "accuracy", "drop_ci_pp")
    bounds = None
    if drop and fp32 is not None and report["precision"] != "fp32":
        bounds = (max(0.0, 100 * fp32 - drop[1]), min(100.0, 100 * fp32 - drop[0]))
    return ParetoPoint(name, report["precision"], latency, 100 * accuracy, bounds)


def front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Those that no other is better than in both, of points by latency."""
    frontier: list[ParetoPoint] = []
    for point in points:
        if (
            frontier
            and frontier[-1].latency_ms == point.latency_ms
            and point.accuracy > frontier[-1].accuracy
        ):
            frontier.pop()
        if not frontier or point.accuracy > frontier[-1].accuracy:
            frontier.append(point)
    return frontier


def _picture(points: Sequence[ParetoPoint], metric: str) -> Iterable[str]:
    best = front(points)
    frame = Frame(
        _latencies([p.latency_ms for p in points]),
        linear(
            f"{metric}, %", _room([v for p in points for v in (p.accuracy, *(p.interval or ()))])
        ),
        f"{metric} in percent against p50 latency of {len(points)} artifacts; the table below "
        "has every value",
    )
    labels = _short([p.name for p in points])
    kinds = [kind for kind in _SERIES if any(p.precision == kind for p in points)]
    entries = [(symbol(_SERIES[kind], 15, 8), kind.upper()) for kind in kinds]
    yield legend([*entries, ('<path class="line front" d="M0 8H30"/>', "none is better in both")])
    steps: list[tuple[float, float]] = []
    for point in best:
        steps += [(point.latency_ms, steps[-1][1])] if steps else []
        steps.append((point.latency_ms, point.accuracy))
    marks = [frame.line(steps, "line front"), *_labels(frame, points, labels)]
    yield from frame.svg([*marks, *(_mark(frame, point) for point in points)])
    rows = [
        (
            *(
                f"{i}",
                p.name,
                p.precision.upper(),
                f"{p.accuracy:.2f}",
                interval(p.interval, ".2f"),
            ),
            *(number(p.latency_ms), "yes" if p in best else "no"),
        )
        for i, p in enumerate(points, 1)
    ]
    yield from table(
        "Accuracy against latency",
        {
            **{"#": "number", "artifact": "head", "precision": "", f"{metric} %": "number"},
            **{"interval": "number", "p50 ms": "number", "on the line": ""},
        },
        rows,
    )


def _short(names: Sequence[str]) -> list[str]:
    """What tells them apart; their numbers in the table where they are many."""
    if len(names) > MOST_LABELS:
        return [f"{i}" for i in range(1, len(names) + 1)]
    parts = [name.split("-") for name in names]
    words = enumerate(zip(*parts, strict=False))
    common = next((i for i, alike in words if len(set(alike)) > 1), 0)
    return ["-".join(part[common:]) for part in parts]


def _latencies(values: Sequence[float]) -> Axis:
    title = "p50 latency, ms"
    if max(values) > 5 * min(values):
        return logarithmic(title, values)
    return linear(title, [min(values) * 0.95, max(values) * 1.05])


def _room(values: Sequence[float]) -> tuple[float, float]:
    """A little around accuracies, so that noise does not look like a cliff."""
    return max(0.0, min(values) - 0.25), min(100.0, max(values) + 0.25)


def _mark(frame: Frame, point: ParetoPoint) -> str:
    x = point.latency_ms
    marks = [frame.mark(x, point.accuracy, _SERIES.get(point.precision, 3))]
    title = f"{point.name}: {point.accuracy:.2f}%, {number(x)} ms"
    if point.interval:
        low, high = point.interval
        marks.insert(
            0, frame.line([(x, low), (x, high)], f"line c{_SERIES.get(point.precision, 3)}")
        )
        title += f" ({interval(point.interval, '.2f')}%)"
    return hover(title, *marks)


def _labels(frame: Frame, points: Sequence[ParetoPoint], labels: Sequence[str]) -> Iterable[str]:
    """Names beside their points where they hide nothing; the table has those that find no room."""
    boxes = [_box(*frame.at(p.latency_ms, p.accuracy), 12, 12) for p in points]
    for point, name in zip(points, labels, strict=True):
        width = _ADVANCE * len(name)
        across, down = frame.at(point.latency_ms, point.accuracy)
        for right, below in (
            (1, 0),
            (-1, 0),
            (0, -1),
            (0, 1),
            (1, -1),
            (1, 1),
            (-1, -1),
            (-1, 1),
            (1, -2),
            (1, 2),
        ):
            x, y = across + right * (10 + width / 2), down + below * _LINE
            box = _box(x, y, width, _LINE)
            inside = box[0] > frame.left and box[2] < WIDTH - RIGHT and box[1] > 0
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                yield frame.text(
                    *(point.latency_ms, point.accuracy, name),
                    shift=(x - across, y - down + 4),
                    anchor="middle",
                )
                break


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

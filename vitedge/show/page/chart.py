"""Pictures as SVG that follows the page's colours: axes, and marks in the axes' own units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitedge.show.page.shell import safe, scroll

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 16, 44
COLOURS = 6
_TINY = 1e-12
"""Stands for zero, which a logarithmic axis has no place for."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Where a value lies between `low` and `high`, and which values are written out."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = (math.log(max(v, _TINY)) for v in (low, high, at))
        return (at - low) / (high - low)


def linear(title: str, values: Iterable[float], *, ticks: int = 6) -> Axis:
    """An axis around all of `values`, marked about `ticks` times at 1, 2 or 5 of a power of 10."""
    numbers = list(values)
    low, high = min(numbers), max(numbers)
    room = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(room / ticks))
    step = next(power * f for f in (1, 2, 5, 10) if power * f * ticks >= room * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = tuple((i * step, _written(i * step, step)) for i in range(first, last + 1))
    return Axis(title, first * step, last * step, marks)


def logarithmic(title: str, values: Iterable[float]) -> Axis:
    """An axis a little wider than `values` > 0, marked at 1, 2, 5 of the powers of 10 or so."""
    numbers = [max(value, _TINY) for value in values]
    low, high = min(numbers) / 1.05, max(numbers) * 1.05
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 5 else (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 5, 7)
    marks = [factor * 10.0**power for power in decades for factor in factors]
    ticks = tuple((m, f"{m:,.6g}") for m in marks if low <= m <= high)
    return Axis(title, low, high, ticks, log=True)


def _written(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{digits}f}" if digits < 7 else f"{value:.3g}"


@dataclass(frozen=True)
class Frame:
    """Two axes on a sheet; its marks are SVG to be given to `svg`."""

    x: Axis
    y: Axis
    label: str
    """What the picture shows, for those who do not see it."""
    height: int = 380

    @property
    def left(self) -> float:
        """Where the picture begins, right of what is written along its upright axis."""
        return max(LEFT, 34 + 10 * max(len(name) for _, name in self.y.ticks))

    def at(self, x: float, y: float) -> Point:
        """The place of a value on the sheet."""
        across = self.left + (WIDTH - self.left - RIGHT) * self.x.share(x)
        return across, TOP + (self.height - TOP - BOTTOM) * (1 - self.y.share(y))

    def line(self, points: Iterable[Point], css: str) -> str:
        """A line through `points`."""
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        return f'<polyline class="{css}" points="{places}"/>'

    def dot(self, x: float, y: float, css: str) -> str:
        """A disc."""
        across, down = self.at(x, y)
        return f'<circle class="{css}" cx="{across:.1f}" cy="{down:.1f}" r="4"/>'

    def triangle(self, x: float, y: float, css: str) -> str:
        """A triangle."""
        across, down = self.at(x, y)
        return f'<path class="{css}" d="M{across:.1f} {down - 6:.1f}l5.5 10h-11Z"/>'

    def mark(self, x: float, y: float, series: int) -> str:
        """A point of one of several series: their colours differ, and so do their shapes."""
        return symbol(series, *self.at(x, y))

    def bar(self, x: Point, y: Point, css: str) -> str:
        """A filled box between two values of each axis."""
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        return f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" {size}/>'

    def column(self, low: float, high: float) -> str:
        """What a mouse need only be over, from bottom to top."""
        return self.bar((low, high), (self.y.low, self.y.high), "hit")

    def text(self, x: float, y: float, text: str, *, shift: Point, anchor: str = "start") -> str:
        """Text beside a value."""
        across, down = self.at(x, y)
        place = f'x="{across + shift[0]:.1f}" y="{down + shift[1]:.1f}"'
        return f'<text class="said" {place} text-anchor="{anchor}">{safe(text)}</text>'

    def svg(self, marks: Iterable[str]) -> Iterable[str]:
        """The picture, in a box that scrolls."""
        yield scroll("Chart")
        yield (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{safe(self.label)}">'
        )
        for tick, name in self.y.ticks:
            _, down = self.at(self.x.low, tick)
            yield f'<path class="grid" d="M{self.left} {down:.1f}H{WIDTH - RIGHT}"/>'
            yield f'<text x="{self.left - 8}" y="{down + 4:.1f}" text-anchor="end">{name}</text>'
        for tick, name in self.x.ticks:
            across, _ = self.at(tick, self.y.low)
            yield (
                f'<text x="{across:.1f}" y="{self.height - 24}" text-anchor="middle">{name}</text>'
            )
        middle = (TOP + self.height - BOTTOM) / 2
        yield (
            f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle:.0f})">{safe(self.y.title)}</text>'
        )
        yield (
            f'<text x="{(self.left + WIDTH - RIGHT) / 2:.0f}" y="{self.height - 6}" '
            f'text-anchor="middle">{safe(self.x.title)}</text>'
        )
        yield from marks
        yield "</svg></div>"


def strips(x: Axis, count: int, title: str, label: str, height: int) -> Frame:
    """A frame of `count` strips, each `height` pixels and 1 high, one above the other."""
    ticks = tuple((float(i), "") for i in range(count + 1))
    return Frame(x, Axis(title, 0, count, ticks), label, TOP + BOTTOM + height * count)


def hover(title: str, *marks: str) -> str:
    """Marks that say more under the mouse."""
    return f"<g><title>{safe(title)}</title>{''.join(marks)}</g>"


def symbol(series: int, x: float, y: float) -> str:
    """The mark of a series, at a place on the sheet."""
    at, shape = f"{x:.1f} {y:.1f}", series % COLOURS
    css = f"dot c{shape}"
    if shape in (0, 4):
        css = css if shape == 0 else f"ring c{shape}"
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    steps = {
        1: "m0-6 5.5 10h-11Z",
        2: "m-4-4h8v8h-8Z",
        3: "m0-6 6 6-6 6-6-6Z",
        5: "m0 6-5.5-10h11Z",
    }
    return f'<path class="{css}" d="M{at}{steps[shape]}"/>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """What the marks mean: (SVG inside a box of 30 by 16, text) each."""
    items = "".join(
        f'<li><svg viewBox="0 0 30 16" aria-hidden="true">{mark}</svg> {safe(text)}</li>'
        for mark, text in entries
    )
    return f'<ul class="legend">{items}</ul>'

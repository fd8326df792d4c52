"""Pictures as SVG that follows the page's colours: axes, and marks in the axes' own units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from markupsafe import Markup, escape

from vitedge.show.page.shell import short
from vitedge.show.text import number

WIDTH = 960
RIGHT, TOP, BOTTOM = 16, 16, 44
SHAPES = (*("", "m0-6 5.5 10h-11Z", "m-4-4h8v8h-8Z", "m0-6 6 6-6 6-6-6Z", "", "m0 6-5.5-10h11Z"),)
"""Of a series, as an SVG path; empty: a disc."""
TINY = 1e-12
"""Stands for zero, which a logarithmic axis has no place for."""

Point = tuple[float, float]
Legend = Sequence[tuple[Markup, str]]
"""(SVG inside a box of 30 by 16, text) each."""


@dataclass(frozen=True)
class Axis:
    """Where a value lies between `low` and `high`, and which values are written out."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = (math.log(max(v, TINY)) for v in (low, high, at))
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
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f",.{digits}f" if digits < 7 else ".3g"
    marks = [(i * step, number(i * step, form)) for i in range(first, last + 1)]
    return Axis(title, first * step, last * step, marks)


def logarithmic(title: str, values: Iterable[float]) -> Axis:
    """An axis a little wider than `values` > 0, marked at 1, 2, 5 of the powers of 10 or so."""
    numbers = [max(value, TINY) for value in values]
    low, high = min(numbers) / 1.05, max(numbers) * 1.05
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 5 else (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 5, 7)
    marks = [factor * 10.0**power for power in decades for factor in factors]
    ticks = [(m, number(m, ".6g")) for m in marks if low <= m <= high]
    return Axis(title, low, high, ticks, log=True)


@dataclass
class Chart:
    """Two axes on a sheet, what is drawn there, and what its marks mean."""

    x: Axis
    y: Axis
    label: str
    """What the picture shows, for those who do not see it."""
    legend: Legend = ()
    height: int = 380
    marks: list[Markup] = field(default_factory=list)

    width = WIDTH
    right = WIDTH - RIGHT
    bottom = property(lambda self: self.height - BOTTOM)

    @cached_property
    def left(self) -> float:
        """Where the picture begins, right of what is written along its upright axis."""
        return max(56, 34 + 10 * max(len(name) for _, name in self.y.ticks))

    def at(self, x: float, y: float) -> Point:
        """The place of a value on the sheet."""
        across = self.left + (self.right - self.left) * self.x.share(x)
        return across, TOP + (self.bottom - TOP) * (1 - self.y.share(y))

    def draw(self, *marks: Markup, title: str = "") -> None:
        """Add marks; those with a title say more under the mouse."""
        if title:
            opened = Markup("<g><title>") + escape(short(title)) + Markup("</title>")
            marks = (opened, *marks, Markup("</g>"))
        self.marks.append(Markup("").join(marks))

    def line(self, points: Iterable[Point], css: str) -> Markup:
        """A line through `points`."""
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)
        return Markup(f'<polyline class="{css}" points="{places}"/>')

    def whisker(self, x: float, ends: Point | None, css: str) -> list[Markup]:
        """An interval upright at `x`, where there is one."""
        return [self.line([(x, end) for end in ends], css)] if ends else []

    def mark(self, x: float, y: float, css: str, shape: int = 0) -> Markup:
        """A point: a disc, or another of SHAPES."""
        return symbol(css, shape, *self.at(x, y))

    def bar(self, x: Point, y: Point, css: str) -> Markup:
        """A filled box between two values of each axis."""
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        size = f'width="{right - left:.1f}" height="{bottom - top:.1f}"'
        return Markup(f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" {size}/>')

    def text(self, x: float, y: float, text: str, *, shift: Point = (6, 18)) -> Markup:
        """Text beside a value."""
        across, down = self.at(x, y)
        place = f'x="{across + shift[0]:.1f}" y="{down + shift[1]:.1f}"'
        return Markup(f'<text class="said" {place}>') + escape(short(text)) + Markup("</text>")


def strips(x: Axis, count: int, label: str, height: int, legend: Legend, title: str = "") -> Chart:
    """A chart of `count` strips, each `height` pixels and 1 high, one above the other."""
    y = Axis(title, 0, count, [(float(i), "") for i in range(count + 1)])
    return Chart(x, y, label, legend, TOP + BOTTOM + height * count)


def symbol(css: str, shape: int = 0, x: float = 15, y: float = 8) -> Markup:
    """A point at a place on the sheet, or in a legend."""
    if path := SHAPES[shape]:
        return Markup(f'<path class="{css}" d="M{x:.1f} {y:.1f}{path}"/>')
    return Markup(f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')


def series(index: int) -> tuple[str, int]:
    """Style and shape of one of several series: their colours differ, and so do their shapes."""
    shape = index % len(SHAPES)
    return f"{'ring' if shape == 4 else 'dot'} c{shape}", shape


def key(css: str) -> Markup:
    """A line or a bar in a legend."""
    path = "M2 3h26v11h-26Z" if css.startswith("bar") else "M0 8H30"
    return Markup(f'<path class="{css}" d="{path}"/>')

"""The picture of a training: loss of every step, and of the images that were kept apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from vitedge.manifest import Trained

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 16, 44
_TINY = 1e-12
"""Stands for a loss of zero, which a logarithmic axis has no place for."""


def section(found: Trained) -> Iterable[str]:
    """HTML of the curve, on a logarithmic axis, and every look at the held-out images."""
    values = [loss for _, loss in found.curve] + [look.loss for look in found.looks]
    logs = [math.log10(max(value, _TINY)) for value in values]
    low, high = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    last = max(found.steps, 1)

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last

    def y(value: float) -> float:
        share = (high - math.log10(max(value, _TINY))) / (high - low)
        return TOP + (HEIGHT - TOP - BOTTOM) * share

    yield "<section><h2>Training</h2>"
    yield (
        '<p class="soft">Loss of each step (line) and of the images held out (triangles); lower '
        "is better.</p>"
    )
    yield '<div class="scroll" tabindex="0" role="group" aria-label="Chart, scrolls sideways">'
    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Loss over {found.steps} '
        'steps; the table below has every look at the held-out images">'
    )
    for power in range(low, high + 1):
        yield f'<path class="grid" d="M{LEFT} {y(10.0**power):.1f}H{WIDTH - RIGHT}"/>'
        yield (
            f'<text x="{LEFT - 8}" y="{y(10.0**power) + 4:.1f}" text-anchor="end">1e{power}</text>'
        )
    for eighth in range(9):
        step = round(last * eighth / 8)
        yield f'<text x="{x(step):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{step}</text>'
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        "step</text>"
    )
    line = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in found.curve)
    yield f'<polyline class="sofar" points="{line}"/>'
    for look in found.looks:
        peak = f"{x(look.step):.1f} {y(look.loss) - 6:.1f}"
        right = "" if look.accuracy is None else f", {look.accuracy:.2%} right"
        said = escape(f"step {look.step}: held-out loss {look.loss:.4g}{right}")
        yield f'<g><title>{said}</title><path class="own-dot" d="M{peak}l5.5 10h-11Z"/></g>'
    yield "</svg></div>"
    yield '<div class="scroll"><table><thead><tr>'
    scored = found.looks[0].accuracy is not None
    columns = ("step", "held-out loss", *(["right %"] if scored else []))
    yield from (f'<th class="number">{name}</th>' for name in columns)
    yield "</tr></thead><tbody>"
    for look in found.looks:
        cells = [f"{look.step}", f"{look.loss:.4g}"]
        if look.accuracy is not None:
            cells.append(f"{look.accuracy:.2%}"[:-1])
        yield "<tr>" + "".join(f'<td class="number">{cell}</td>' for cell in cells) + "</tr>"
    yield "</tbody></table></div></section>"

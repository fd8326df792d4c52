"""A gate's checks as columns: the same names, units and figures on every surface and in CI."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from vitedge.gate.verdict import Check, Verdict
from vitedge.show.table import SCALES, Column, Interval
from vitedge.show.text import number, one_line

FP32 = "fp32"
"""What an artifact is compared with unless its name says otherwise."""
METRICS = {
    "drop_pp": ("drop", "pp"),
    "speedup": ("speed-up", "×"),
    "slowdown": ("slowdown", "×"),
    "p90_ms": ("p90", "ms"),
    "size_bytes": ("size", "MB"),
    "peak_rss_bytes": ("peak RSS", "MB"),
    "sqnr_db": ("SQNR", "dB"),
    "top1": ("top-1", ""),
}
"""What people call a metric, and its unit; others are shares by their own name."""
BOUNDS = {"max": "≤", "min": "≥"}
WORST_FIRST = ("failed", "inconclusive", "passed")
HALF = 6
"""Columns of a ruler on each side of the limit."""


@dataclass(frozen=True)
class NamedCheck:
    """A check, and what it is a check of."""

    name: str
    check: Check

    @property
    def label(self) -> str:
        """`drop_pp` → `drop`."""
        return METRICS.get(self.check.metric, (one_line(self.check.metric), ""))[0]

    @property
    def unit(self) -> str:
        """`p90_ms` → `ms`; `speedup` → `×`; empty for a share."""
        return METRICS.get(self.check.metric, ("", ""))[1]

    @property
    def value(self) -> float | None:
        """What was measured, where it is a number; infinite where the artifact equals FP32."""
        value = self.check.value
        return None if value is None or math.isnan(value) else value

    @property
    def finite(self) -> bool:
        """Whether the value and both ends of its interval are finite numbers."""
        numbers = (self.value, *(self.check.interval or (None,)))
        return all(n is not None and math.isfinite(n) for n in numbers)

    @property
    def limit(self) -> str:
        """`≤ 0.5 pp`."""
        return f"{BOUNDS[self.check.bound]} {self.quantity(self.check.limit)}"

    def scaled(self, value: float) -> float:
        """`value` in the unit people read."""
        return value / SCALES.get(self.unit, 1.0)

    def quantity(self, value: float) -> str:
        """`value` in the unit people read, with it."""
        space = "" if self.unit == "×" else " "
        return f"{number(self.scaled(value), '.4g')}{space}{self.unit}".rstrip()


def names(verdict: Verdict) -> list[str]:
    """Name each artifact as over all commits; where two share a name, each with its path."""
    short = [
        one_line(j.artifact if j.against == FP32 else f"{j.artifact} against {j.against}")
        for j in verdict.judged
    ]
    count, named = Counter(short), zip(short, verdict.judged, strict=True)
    return [n if count[n] == 1 else one_line(f"{n} ({judged.path})") for n, judged in named]


def rows(verdict: Verdict) -> list[NamedCheck]:
    """Every check, in the order of the artifacts."""
    named = zip(names(verdict), verdict.judged, strict=True)
    return [NamedCheck(name, check) for name, judged in named for check in judged.checks]


def ruler(row: NamedCheck) -> str:
    """The interval and the value around the limit, which stands in the middle; a word's size."""
    value, ends, limit = row.value, row.check.interval or (), row.check.limit
    if value is None or math.isinf(value):
        return ""
    reach = max(abs(x - limit) for x in (value, *ends) if math.isfinite(x)) or 1.0
    at, *bar = (
        HALF + round(HALF * min(max((x - limit) / reach, -1.0), 1.0)) for x in (value, *ends)
    )
    cells = ["·"] * (2 * HALF + 1)
    if bar:
        cells[bar[0] : bar[1] + 1] = ["━"] * (bar[1] + 1 - bar[0])
    cells[HALF] = "╋" if cells[HALF] == "━" else "┃"
    cells[at] = "●"
    return "".join(cells)


def _interval(row: NamedCheck) -> Interval | str:
    ends = row.check.interval
    return (row.scaled(ends[0]), row.scaled(ends[1])) if ends else ""


_Check = Column[NamedCheck]
MEASURED = _Check(
    "measured", "measured", "", lambda row: None if row.value is None else row.quantity(row.value)
)
INTERVAL = _Check("interval", "interval", "", _interval, ".4g", kind="interval")
COLUMNS = (
    _Check("artifact", "artifact", "", lambda row: row.name, kind="head"),
    _Check("check", "check", "", lambda row: row.label, kind="word"),
    MEASURED,
    INTERVAL,
    _Check("limit", "limit", "", lambda row: row.limit),
    _Check("ruler", "limit at ┃", "", ruler, kind="code", on=("terminal", "markdown")),
    _Check("answer", "answer", "", lambda row: row.check.answer, kind="answer"),
    _Check("reason", "why", "", lambda row: row.check.reason, kind="text", on=("page",)),
    _Check("needed", "would decide", "", lambda row: row.check.needed, on=("page",)),
)

"""A gate's checks as columns: the same names, units and figures on every surface and in CI."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from vitedge.core.errors import LISTED
from vitedge.gate.limits import LIMITS
from vitedge.gate.verdict import FP32, Check, Judged, Verdict
from vitedge.show.table import Column, Interval
from vitedge.show.text import number, one_line

LABELS = {"drop_pp": "drop", "speedup": "speed-up", "p90_ms": "p90", "size_bytes": "size"}
LABELS |= {
    "peak_rss_bytes": "peak RSS",
    "sqnr_db": "SQNR",
    "token_sqnr_db": "worst token",
    "top1": "top-1",
}
"""What people call a metric where that is not its own name."""
UNITS = {limit.metric: (limit.unit, limit.scale) for limit in LIMITS.values()}
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
        return LABELS.get(self.check.metric, one_line(self.check.metric))

    @property
    def unit(self) -> str:
        """`p90_ms` → `ms`; `speedup` → `×`; empty for a share."""
        return UNITS[self.check.metric][0].strip()

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
        return value / UNITS[self.check.metric][1]

    def quantity(self, value: float) -> str:
        """`value` in the unit people read, with it."""
        return f"{number(self.scaled(value), '.4g')}{UNITS[self.check.metric][0]}"


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


def signature(judged: Judged) -> str:
    """Whether the report that was judged is signed, and by which key."""
    signature = judged.signature
    key = f"{one_line(signature.key)} (SHA-256 {signature.fingerprint[:16]}…)"
    return {
        "signed": f"report signed by {key}, {one_line(signature.signed_at) or 'without a date'}",
        "measured": f"report measured in this run; artifact signed by {key}",
        "unsigned": "report not signed",
        "unchecked": "report's signature not checked: no keys given",
    }[signature.state]


def signatures(verdict: Verdict) -> Iterator[str]:
    """The same of every artifact, once where it is the same of all."""
    said = {judged.path: signature(judged) for judged in verdict.judged}
    if len(set(said.values())) == 1:
        yield next(iter(said.values()))
        return
    for path, text in islice(said.items(), LISTED):
        yield f"{one_line(path)}: {text}"


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

"""What a report says, for a page: looked up softly, named, and written as people write numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitedge.show.terminal.tables import DASH

Report = Mapping[str, Any]


def look(report: Report, *keys: str) -> Any:
    """What lies at `keys`, each inside the one before; None where one of them is missing."""
    value: Any = report
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def names(reports: Sequence[Report]) -> list[str]:
    """A name for each: the artifact's, and its machine's where there are several."""
    machines = [machine(report) for report in reports]
    several = len(set(machines)) > 1
    return [
        f"{report['artifact']} on {where}" if several else str(report["artifact"])
        for report, where in zip(reports, machines, strict=True)
    ]


def machine(report: Report) -> str:
    """What ran it."""
    ran = look(report, "host", "accelerator") or look(report, "host", "cpu") or "?"
    return f"{report['device']} ({ran})" if report.get("device") else str(ran)


def number(value: float | None, how: str = "", unit: float = 1.0) -> str:
    """`value` in multiples of `unit`; three figures, or 1,234, where `how` is empty."""
    if value is None:
        return DASH
    scaled = value / unit
    return f"{scaled:{how or (',.0f' if abs(scaled) >= 999.5 else '.3g')}}"


def count(value: int | None) -> str:
    """How many."""
    return DASH if value is None else f"{value:,}"


def interval(bounds: Sequence[float] | None, how: str = "") -> str:
    """From … to."""
    return DASH if bounds is None else " … ".join(number(end, how) for end in bounds)


def within(value: float | None, bounds: Sequence[float] | None, how: str) -> str:
    """A value and its interval."""
    if value is None or bounds is None:
        return number(value, how)
    return f"{number(value, how)} ({interval(bounds, how)})"

"""A verdict in the formats that CI systems read, by the name that `write` takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from vitedge.gate.verdict import Verdict
from vitedge.show import checks
from vitedge.show.ci import junit, markdown
from vitedge.show.table import PAGE


def _json(document: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _benchmark_action(bound: Literal["max", "min"]) -> Callable[[Verdict], str]:
    """JSON for github-action-benchmark, which takes one direction of better at a time: what has a
    maximum (drop, latency, size, memory), or a minimum (speed-up, agreement, SQNR).

    https://github.com/benchmark-action/github-action-benchmark: custom{Smaller,Bigger}IsBetter
    """

    def render(verdict: Verdict) -> str:
        benches = []
        for row in checks.rows(verdict):
            if row.check.bound == bound and row.value is not None and math.isfinite(row.value):
                bench = {
                    "name": f"{row.name}: {row.label}",
                    "unit": row.unit or "share",
                    "value": row.scaled(row.value),
                    "range": checks.INTERVAL.cell(row, PAGE) if row.finite else "",
                    "extra": f"{bound} {row.quantity(row.check.limit)}: {row.check.answer}",
                }
                benches.append({key: value for key, value in bench.items() if value != ""})
        return _json(benches)

    return render


FORMATS: dict[str, Callable[[Verdict], str]] = {
    "junit": junit.render,
    "markdown": markdown.render,
    "json": _json,
    "smaller-is-better": _benchmark_action("max"),
    "bigger-is-better": _benchmark_action("min"),
}

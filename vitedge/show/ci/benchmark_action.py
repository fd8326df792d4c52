"""JSON for github-action-benchmark, in two files: it takes one direction of better at a time.

https://github.com/benchmark-action/github-action-benchmark, tools custom{Smaller,Bigger}IsBetter
"""

from __future__ import annotations

from typing import Literal

import msgspec

from vitedge.gate.verdict import Verdict
from vitedge.show.ci import figures


class _Bench(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


def smaller_is_better(verdict: Verdict) -> str:
    """What has a maximum: drop, latency, size, memory."""
    return _render(verdict, "max")


def bigger_is_better(verdict: Verdict) -> str:
    """What has a minimum: speed-up, agreement, SQNR."""
    return _render(verdict, "min")


def _render(verdict: Verdict, bound: Literal["max", "min"]) -> str:
    benches = []
    for name, judged in zip(figures.names(verdict), verdict.judged, strict=True):
        for check in judged.checks:
            value, ends = figures.finite(check), figures.interval(check)
            if check.bound != bound or value is None:
                continue
            benches.append(
                _Bench(
                    name=f"{name}: {figures.label(check.metric)}",
                    unit=figures.unit(check.metric) or "share",
                    value=figures.scaled(check.metric, value),
                    range=" … ".join(figures.amount(check.metric, end) for end in ends or ()),
                    extra=f"{bound} {figures.quantity(check.metric, check.limit)}: {check.answer}",
                )
            )
    return msgspec.json.format(msgspec.json.encode(benches), indent=2).decode() + "\n"

"""Bencher Metric Format, for `bencher run --adapter json --file FILE`.

https://bencher.dev/docs/reference/bencher-metric-format
"""

from __future__ import annotations

import msgspec

from vitedge.gate.verdict import Verdict
from vitedge.show.ci import figures

MEASURES = {"p90_ms": "latency", "size_bytes": "file-size"}
"""What Bencher has a measure of its own for; others become its custom measures."""
NS_PER_MS = 1e6


def render(verdict: Verdict) -> str:
    """A benchmark for each artifact, a measure for each metric; latency in nanoseconds."""
    document: dict[str, dict[str, dict[str, float]]] = {}
    for name, judged in zip(figures.names(verdict), verdict.judged, strict=True):
        measures = document.setdefault(name, {})
        for check in judged.checks:
            value, ends = figures.finite(check), figures.interval(check)
            if value is None:
                continue
            factor = NS_PER_MS if check.metric.endswith("_ms") else 1
            metric = {"value": value * factor}
            if ends:
                metric |= {"lower_value": ends[0] * factor, "upper_value": ends[1] * factor}
            measures[_measure(check.metric)] = metric
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _measure(metric: str) -> str:
    if metric in MEASURES:
        return MEASURES[metric]
    return figures.one_line(metric).removesuffix("_ms").replace("_", "-")

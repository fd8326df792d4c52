"""Throughput by setting: Offline and both sweeps as one series of points, for every table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def points(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each setting in a report: its `scenario`, batch, threads, streams and images a second.

    Those of `offline` have an interval, and the `best` is marked; those of `sweep-threads` and
    `sweep-batch` have latencies.
    """
    offline = report.get("offline") or {"points": ()}
    for point in offline["points"]:
        yield {"scenario": "offline", "best": point == offline["best"], **point}
    for setting in ("threads", "batch"):
        for point in report.get(f"sweep_{setting}") or ():
            yield {"scenario": f"sweep-{setting}", "streams": 1, **point}

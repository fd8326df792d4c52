"""Measuring an artifact on the device it ships to: nothing else in vitedge reads a clock for it."""

from vitedge.measure.latency.clock import Feed, measure
from vitedge.measure.latency.summary import (
    P90_RUNS,
    P99_RUNS,
    LatencyComparison,
    summarize,
)

__all__ = [
    "P90_RUNS",
    "P99_RUNS",
    "Feed",
    "LatencyComparison",
    "measure",
    "summarize",
]

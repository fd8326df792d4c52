"""Measuring an artifact on the device it ships to: nothing else in vitedge reads a clock for it."""

from vitedge.measure.latency.clock import (
    P90_RUNS,
    P99_RUNS,
    Comparison,
    Feed,
    Latency,
    measure,
    summarize,
)

__all__ = ["P90_RUNS", "P99_RUNS", "Comparison", "Feed", "Latency", "measure", "summarize"]

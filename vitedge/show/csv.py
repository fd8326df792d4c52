"""What `bench` measured as CSV: one row for each artifact and setting, for other tools to plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitedge.core import files
from vitedge.core.report import Report
from vitedge.show.terminal.tables import builtins
from vitedge.show.throughput import points

TIMING = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "n")
SETTING = ("batch", "streams", "threads")
COST = {
    "size_bytes": ("size", "bytes"),
    "peak_rss_bytes": ("memory", "peak_rss_bytes"),
    "device_bytes": ("memory", "device_bytes"),
    "load_ms": ("cold_start", "load_ms"),
    "first_inference_ms": ("cold_start", "first_inference_ms"),
    "process_to_ready_ms": ("cold_start", "process_to_ready_ms"),
    "joules_per_inference": ("energy", "joules_per_inference"),
    "noise_percent": ("conditions", "noise_percent"),
    "fingerprint": ("conditions", "fingerprint"),
    "measured_at": ("conditions", "measured_at"),
    "cpu": ("host", "cpu"),
}
"""Columns that are the same in every row of an artifact, and where its report has them."""
COLUMNS = (
    *("artifact", "model", "target", "precision", "scenario", *SETTING, *TIMING),
    *("images_per_s", "images_per_s_low", "images_per_s_high"),
    *("against", "against_p50_ms", "speedup", "speedup_low", "speedup_high"),
    *COST,
)


def write(measured: Sequence[Report], file: Path) -> None:
    """Write the rows of `reports` to `file`, all or nothing. Raises InputError."""
    reports = builtins(measured)
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    rows.writeheader()
    for report in reports:
        rows.writerows(_rows(report))
    files.write(file, text.getvalue())


def _rows(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    common = {name: report[name] for name in ("artifact", "model", "target", "precision")}
    for column, (section, key) in COST.items():
        common[column] = (report.get(section) or {}).get(key)
    for row in _settings(report):
        yield common | row


def _settings(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each scenario and setting in a report, of what only that row has."""
    if latency := report.get("latency"):
        yield {"scenario": "single-stream", "streams": 1, **_single(latency, report)}
    for point in points(report):
        low, high = point.get("images_per_s_ci") or (None, None)
        yield {
            **_pick(point, ("scenario",), SETTING, TIMING, ("images_per_s",)),
            "images_per_s_low": low,
            "images_per_s_high": high,
        }


def _single(latency: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    rival = latency["fp32"] or latency["other"] or {}
    low, high = latency["speedup_ci"] or (None, None)
    return {
        **_pick(latency, SETTING, TIMING, ("against", "speedup")),
        "threads": (report.get("host") or {}).get("threads"),
        "against_p50_ms": rival.get("p50_ms"),
        "speedup_low": low,
        "speedup_high": high,
    }


def _pick(section: Mapping[str, Any], *names: Sequence[str]) -> dict[str, Any]:
    return {name: section[name] for group in names for name in group if name in section}

"""The CSV holds what the report does, a row for each setting, and is refused before a run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from vitedge.show.csv import write

TIMING = {"p50_ms": 2.0, "p90_ms": 3.0, "p99_ms": None, "mean_ms": 2.1, "n": 100}
POINTS = [
    {
        "batch": batch,
        "streams": 1,
        "threads": 4,
        "images_per_s": 500.0 * batch,
        "images_per_s_ci": [450.0 * batch, 550.0 * batch],
        "n": 20,
    }
    for batch in (1, 8)
]
REPORT: dict[str, Any] = {
    "artifact": "vit, small-int8",
    "model": "vit",
    "target": "onnxruntime-cpu",
    "precision": "int8",
    "host": {"threads": 4, "cpu": "A CPU"},
    "latency": {
        **TIMING,
        "batch": 1,
        "against": "fp32",
        "fp32": {**TIMING, "p50_ms": 4.0},
        "other": None,
        "speedup": 2.0,
        "speedup_ci": [1.9, 2.1],
    },
    "offline": {"points": POINTS, "best": POINTS[1], "note": ""},
    "sweep_threads": [{**TIMING, "threads": 1, "batch": 1, "images_per_s": 500.0}],
    "size": {"bytes": 1000, "fp32_bytes": 4000},
    "conditions": {"noise_percent": 1.5, "fingerprint": "0123456789ab", "measured_at": "now"},
}


def test_a_row_for_each_setting(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    write([REPORT], file)
    rows = list(csv.DictReader(file.open()))
    assert [row["scenario"] for row in rows] == [
        "single-stream",
        "offline",
        "offline",
        "sweep-threads",
    ]
    assert {row["artifact"] for row in rows} == {"vit, small-int8"}
    assert {row["size_bytes"] for row in rows} == {"1000"}
    assert {row["fingerprint"] for row in rows} == {"0123456789ab"}
    single, small, large, _ = rows
    assert (single["p50_ms"], single["p99_ms"], single["n"]) == ("2.0", "", "100")
    assert (single["speedup"], single["speedup_low"], single["against_p50_ms"]) == (
        "2.0",
        "1.9",
        "4.0",
    )
    assert single["peak_rss_bytes"] == ""  # not measured
    assert (small["images_per_s"], large["images_per_s"]) == ("500.0", "4000.0")
    assert (large["batch"], large["images_per_s_high"]) == ("8", "4400.0")
    assert list(tmp_path.iterdir()) == [file]


def test_an_old_file_is_replaced_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "numbers.csv", tmp_path / "latest.csv"
    file.write_text("old")
    link.symlink_to(file)
    write([], link)
    assert link.is_symlink()
    assert list(csv.DictReader(file.open())) == []

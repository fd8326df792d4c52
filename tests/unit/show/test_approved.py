"""What people and CI see against approved files, which one command writes anew:
`VITEDGE_APPROVE=1 pytest tests/unit/show/test_approved.py`; look at what changed, then commit it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as change

from tests.support import jetsons
from tests.support import page_artifacts as gates
from tests.support.page_reports import distribution, measured, with_part
from tests.support.verdicts import check, judged
from vitedge.core.jetson import jetson
from vitedge.core.manifest import Finding, HeldOut, Trained
from vitedge.core.spec import Training
from vitedge.gate import compare
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.measure.inspection import Inspection, QuantizedTensor, rows_of, summarize
from vitedge.show import csv
from vitedge.show.ci import FORMATS
from vitedge.show.page import bench, inspection
from vitedge.show.terminal import bench as bench_tables
from vitedge.show.terminal import compare as comparison_tables
from vitedge.show.terminal import gate as gate_tables
from vitedge.show.terminal import inspection as inspection_tables
from vitedge.show.terminal import tables

APPROVED = Path(__file__).with_name("approved")


def approve(name, text):
    """Compare with the approved file; without style, and pixels as Pillow happens to pack them."""
    text = re.sub(r"<style>.*?</style>", "<style></style>", text, flags=re.DOTALL)
    text = re.sub(r"(data:image/\w+;base64,)[^\"]*", r"\1…", text)
    file = APPROVED / name
    if os.environ.get("VITEDGE_APPROVE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def small(name, precision, p50_ms, accuracy):
    """A report whose series has a few points."""
    report = measured(name, precision, p50_ms, accuracy)
    short = distribution(p50_ms, 0, points=4)
    rival = change(report.latency.fp32, distribution=distribution(2.1, 1, points=4))
    return with_part(report, "latency", distribution=short, fp32=rival)


def test_the_page_of_bench():
    reports = [small("vit-fp32", "fp32", 2.1, 0.84), small("vit-int8", "int8", 1.2, 0.836)]
    approve("bench.html", bench.render(reports, "vitedge bench --html bench.html"))


def test_the_page_of_a_gate():
    evidence = PerImage(
        digests=np.arange(5, dtype=np.uint64),
        labels=np.array([0, 0, 1, 1, 2], np.int32),
        fp32=np.array([0, 0, 1, 0, 0], np.uint16),
        artifact=np.array([2, 0, 0, 1, 1], np.uint16),
        worst=np.array([4, 0], np.int64),
        thumbnails=np.zeros((2, 4, 4, 3), np.uint8),
    )
    parts = {"per_image": evidence, "labels": ("cat", "dog", "eel")}
    artifacts = [
        gates.shown(
            *(name, answer, drop),
            report=small(name, "int8", 1.2, 0.84 - drop / 100),
            manifest=gates.manifest_of(name, layers=3),
            **parts,
        )
        for name, answer, drop in (
            *(("vit-a-int8", "passed", 0.1), ("vit-b-int8", "failed", 1.3)),
            ("vit-c-int8", "inconclusive", 0.4),
        )
    ]
    approve("gate.html", gates.page(artifacts, "vitedge gate --max-drop 0.5 --html gate.html"))


def test_an_inspection(capsys):
    manifest = gates.manifest_of("vit-int8", layers=22)
    rows = rows_of(manifest.quantization.layers)
    looks = tuple(HeldOut(step=i, loss=1.0 / (i + 1), accuracy=0.5 + i / 4) for i in range(3))
    trained = Trained(
        **{"settings": Training(), "source": "x", "images": 9, "skipped": {}, "digest": ""},
        **{"held_out": 3, "missing_classes": (), "processes": 1, "steps": 2, "best_step": 2},
        **{"looks": looks, "curve": ((0, 1.0), (1, 0.3), (2, 0.0))},
    )
    scale = QuantizedTensor(
        **{"tensor": "x", "kind": "weight", "dtype": "int8", "axis": 1},
        **{"scales": (0.01, 0.02), "zero_points": (0, 0)},
    )
    finding = Finding(rule="cast", node="", consequence="slower", what="a cast", fix="drop it")
    about = Inspection(
        **{"name": "vit-int8", "kind": "artifact", "about": {"model": "vit"}, "layers": rows},
        **{"target": "onnxruntime-cpu", "notes": ("a note",), "summary": summarize(rows)},
        **{"quantizers": (scale,), "lint": (finding,), "training": trained},
    )
    approve("inspection.html", inspection.render(about))
    inspection_tables.show(about)
    approve("inspection.txt", capsys.readouterr().out)


def test_a_bench_on_the_terminal_and_as_csv(capsys, tmp_path):
    reports = [small("vit-fp32", "fp32", 2.1, 0.84), small("vit, b-int8", "int8", 1.2, 0.836)]
    for table in (
        tables.reports(reports, "latency in turn"),
        tables.reports([change(reports[0], memory=None)], "FP32 alone"),
        *bench_tables.tables(reports),
    ):
        tables.show(table)
    print(*bench_tables.facts(reports), *bench_tables.warnings(reports), sep="\n")
    approve("bench.txt", capsys.readouterr().out)
    csv.write(reports, tmp_path / "bench.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["bench.csv"]
    approve("bench.csv", (tmp_path / "bench.csv").read_text())


def test_a_bench_on_a_jetson(tree, capsys, tmp_path):
    state = jetson(tree(jetsons.ORIN_NANO))
    report = small("vit-int8", "int8", 1.2, 0.836)
    report = with_part(report, "host", jetson=state, governor="schedutil")
    report = with_part(report, "conditions", jetson=state, throttled=False)
    report = with_part(report, "conditions", temperatures_c={"gpu-thermal": (52.03, 61.7)})
    (line,) = [line for line in bench_tables.facts([report]) if "Jetson" in line]
    assert line == (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, Jetson Linux 36.4.3: "
        "power mode 25W; clocks locked: CPU no, up to 1,344 MHz, GPU no, up to 918 MHz, memory "
        "unknown; gpu-thermal 52 → 62 °C"
    )
    csv.write([report], tmp_path / "bench.csv")
    text = (tmp_path / "bench.csv").read_text()
    assert "power_mode,clocks_locked" in text and ',25W,"CPU no, up to 1,344 MHz' in text
    page = bench.render([report], "vitedge bench --html bench.html")
    assert "25W" in page and "gpu-thermal 52 → 62 °C" in page and "Jetson Linux 36.4.3" in page
    without = with_part(report, "conditions", temperatures_c={})
    assert "temperatures unknown" in [*bench_tables.facts([without])][-1]


def test_a_comparison_on_the_terminal(capsys):
    first = compare.Side(
        **{"artifact": "vit-a", "path": "a", "target": "t", "precision": "int8"},
        **{"accuracy": 0.84, "sqnr_db": 33.0, "token_sqnr_db": None},
        **{"p50_ms": 2000.0, "p90_ms": 2500.0},
        **{"size_bytes": 22_000_000, "peak_rss_bytes": None},
    )
    comparison = compare.ArtifactComparison(
        **{"schema": compare.SCHEMA, "model": "vit", "confidence": 0.95, "notes": ("a note",)},
        sides=(first, change(first, artifact="vit-b", accuracy=None, p50_ms=1.5)),
        accuracy=compare.AccuracyDifference(
            metric="top1", drop_pp=0.25, drop_ci_pp=(-0.1, 0.6), agreement=0.98, n=5000
        ),
        latency=compare.LatencyDifference(speedup=1.5, speedup_ci=(1.4, 1.6), how="in turn"),
    )
    tables.show(comparison_tables.comparison(comparison))
    print(*comparison_tables.remarks(comparison), sep="\n")
    approve("compare.txt", capsys.readouterr().out)


def test_a_verdict_on_the_terminal(mixed, capsys):
    two = change(mixed, judged=(*mixed.judged, judged(check(), artifact="b")))
    tables.show(gate_tables.verdict(two))
    print(*gate_tables.reasons(two), sep="\n")
    approve("verdict.txt", capsys.readouterr().out)


@pytest.mark.parametrize("form", ["markdown", "junit", "smaller-is-better", "bigger-is-better"])
def test_a_verdict_for_ci(mixed, form):
    approve(f"verdict.{form}", FORMATS[form](mixed))

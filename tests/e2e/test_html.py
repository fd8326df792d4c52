"""`--html` of bench and gate as a user types it: one page with what was measured and decided."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.machine import ONNXRUNTIME


@pytest.fixture(scope="module")
def pages(vitedge, bundles, tmp_path_factory):
    """The pages of bench and of gate over one artifact, in the order a user makes them."""
    folder = tmp_path_factory.mktemp("html")
    for precision in ("fp32", "int8"):
        path = bundles["onnxruntime", precision]
        shutil.copytree(path, folder / path.name)
    int8 = bundles["onnxruntime", "int8"].name
    bench = vitedge("bench", int8, "--duration", 0.2, "--html", "bench.html", "--json", cwd=folder)
    assert bench.document["artifact"] == int8
    asked = ("--max-drop", 1, "--max-size-mb", 100, "--html", "gate.html")
    assert vitedge("gate", int8, *asked, "--json", cwd=folder).document["answer"] == "passed"
    return {name: (folder / f"{name}.html").read_text() for name in ("bench", "gate")}


def headings(page):
    return set(re.findall("<h[23]>(.*?)</h[23]>", page))


def test_bench_writes_what_it_measured_with_the_accuracy_that_is_known(pages):
    titles = headings(pages["bench"])
    assert {
        *("Latency distribution", "Latency over time", "Cold start", "Machine"),
        "Accuracy against latency",
    } <= titles
    assert f"digits-{ONNXRUNTIME}-fp32" in pages["bench"]
    assert f"vitedge bench digits-{ONNXRUNTIME}-int8 --duration 0.2" in pages["bench"]
    assert len(pages["bench"].encode()) < 200_000


def test_gate_writes_its_answers_and_the_evidence(pages):
    titles = headings(pages["gate"])
    assert {
        *("Artifacts", "Drop with its interval", "Limits", "Latency distribution"),
        *("Confusion changes", "Error against depth", "Manifest", "How to reproduce"),
    } <= titles
    assert "✓ passed" in pages["gate"] and "≤ 100 MB" in pages["gate"]
    assert "on all 719 images" in pages["gate"]
    assert f"vitedge export digits --target {ONNXRUNTIME} --int8" in pages["gate"]
    assert f"vitedge gate digits-{ONNXRUNTIME}-int8 --max-drop 1" in pages["gate"]


@pytest.mark.parametrize(
    ("command", "page"),
    [(("bench",), "nowhere/page.html"), (("gate", "--max-drop", 1), "page.txt")],
)
def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    vitedge, bundles, tmp_path, command, page
):
    path = bundles["openvino", "int8"]
    ran = vitedge(*command, path, "--html", page, code=2, cwd=tmp_path)
    assert page in ran.stderr and "loading" not in ran.stderr and ran.stdout == ""

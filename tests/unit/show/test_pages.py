"""The pages of bench and gate: what they show is right, harmless, legible, and not too much."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.support import page_artifacts as gates
from tests.support.page_reports import HOSTILE, field, measured
from vitedge.core.report import Report
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.show.page import disagreement, pareto, shell
from vitedge.show.page.bench import render
from vitedge.show.page.chart import linear, logarithmic

VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """A page as a browser takes it; every element must be closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def rows(html: str, label: str) -> list[list[str]]:
    """The cells of a table's body, as text."""
    body = html.split(f'aria-label="{label}, scrolls sideways"')[1].split("</table>")[0]
    lines = re.findall(r"<tr>(.*?)</tr>", body.split("<tbody>")[1])
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.split("</t[hd]>", row)[:-1]]
        for row in lines
    ]


def pictures(html: str) -> list[ElementTree.Element]:
    """The charts, which must be well-formed on their own."""
    return [
        ElementTree.fromstring(svg)
        for svg in re.findall(r'<svg [^>]*role="img".*?</svg>', html, re.S)
    ]


def bench(reports: list[dict[str, Any]]) -> str:
    return render([msgspec.convert(report, Report) for report in reports], "vitedge bench")


def gate(*artifacts: gates.Shown) -> str:
    return gates.page(artifacts)


@pytest.fixture(scope="module")
def both() -> dict[str, str]:
    """The two pages with everything on them."""
    return {"bench": bench(field()), "gate": gate(*gates.three())}


BOTH = pytest.mark.parametrize("which", ["bench", "gate"])


# -- all pages ----------------------------------------------------------------------------------


@BOTH
def test_a_page_is_well_formed_and_its_pictures_are_labelled(both, which: str) -> None:
    page = Page(both[which])
    charts = pictures(both[which])
    assert len(charts) >= 5
    for svg in charts:
        assert len(svg.attrib["aria-label"]) > 20
        numbers = re.findall(r'="(-?[\d.]+|nan|-?inf)"', ElementTree.tostring(svg, "unicode"))
        assert numbers and all(np.isfinite(float(number)) for number in numbers)
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
    assert all(image["alt"].startswith("image ") for image in page.all("img"))
    boxes = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert boxes and all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


@BOTH
def test_a_page_needs_no_network_and_no_script(both, which: str) -> None:
    page = Page(both[which])
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "://" not in both[which] and "url(" not in both[which] and "@import" not in both[which]
    addresses = [a[k] for _, a in page.tags for k in ("src", "href") if k in a]
    assert all(address.startswith("data:image/") for address in addresses)
    policy = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy and policy[0].startswith("default-src 'none'")


def test_whatever_files_say_is_shown_and_does_nothing() -> None:
    report = measured(HOSTILE, "int8", 1.2, 0.83)
    report["host"]["cpu"] = report["accuracy"]["data"] = report["energy"]["source"] = HOSTILE
    report["conditions"]["warnings"] = [HOSTILE]
    manifest = gates.manifest_of(HOSTILE)
    layers = (gates.layer(1, HOSTILE), gates.layer(2))
    manifest = msgspec.structs.replace(
        manifest,
        quantization=msgspec.structs.replace(manifest.quantization, layers=layers),
        tools={HOSTILE: HOSTILE},
    )
    hostile = gates.shown(
        *(HOSTILE, "failed", 1.0), report=report, manifest=manifest, labels=(HOSTILE,) * 10
    )
    judged = msgspec.structs.replace(hostile.judged, path=HOSTILE, against=HOSTILE)
    hostile = replace(hostile, judged=judged)
    for html in (bench([report, measured("b", "fp32", 2.0, 0.84)]), gate(hostile)):
        page = Page(html)
        assert "script" not in {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert "alert('1')" in page.text and "\x1b" not in html
        pictures(html)  # well-formed


def test_pages_are_made_without_a_runtime() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "rich")
    code = (
        "import sys\nfrom vitedge.show.page import bench, gate, artifacts\n"
        f"assert not set({heavy}) & set(sys.modules), sorted(set({heavy}) & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_colour_of_text_is_legible_on_every_ground() -> None:
    style = Path(shell.__file__).with_name("style.css").read_text(encoding="utf-8")

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    schemes = re.findall(r":root \{(.*?)\}", style, re.S)
    assert len(schemes) == 2  # light, dark
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for ground in ("paper", "band"):
            for ink in set(colours) - {"paper", "band", "line"}:
                pair = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)


@pytest.mark.parametrize("axis", [linear, logarithmic])
@pytest.mark.parametrize(
    "values", [(0.003, 0.0031), (1, 1), (0.4, 900.0), (1.2, 7.0), (2e4, 3.1e6), (0.98, 1.31)]
)
def test_an_axis_holds_its_values_and_marks_two_or_more(axis: Any, values: Any) -> None:
    drawn = axis("x", values)
    assert all(0 <= drawn.share(value) <= 1 for value in values)
    shown = [name for _, name in drawn.ticks]
    assert len(set(shown)) == len(shown) <= 14
    assert all(0 <= drawn.share(tick) <= 1.0001 for tick, _ in drawn.ticks)
    assert len(shown) >= 2 or (axis is logarithmic and values[1] < 1.5 * values[0])


def test_thirty_large_artifacts_stay_under_two_megabytes() -> None:
    evidence = gates.per_image(50_000, 4_000, side_px=64)
    names = tuple(f"n{i:03d}" * 40 for i in range(10))
    artifacts = [
        gates.shown(
            *(f"vit_large-{i}-" + "x" * 60, "failed" if i == 7 else "passed", i / 30),
            images=100,
            per_image=evidence,
            labels=names,
            manifest=gates.manifest_of("m", layers=200),
        )
        for i in range(30)
    ]
    html = gate(*artifacts)
    assert len(html.encode()) < 2_000_000
    assert "Left out, for the page to stay small: vit_large-" in html
    assert html.index("<h2>vit_large-7-") < html.index("<h2>vit_large-0-")  # failed: first
    assert len(bench([artifact.files.report for artifact in artifacts]).encode()) < 2_000_000


# -- bench --------------------------------------------------------------------------------------


def test_the_bench_page_shows_every_scenario_that_was_run() -> None:
    html = bench(field())
    for title in ("Latency distribution", "Latency over time", "Accuracy against latency"):
        assert f"<h2>{title}</h2>" in html
    for title in ("Throughput", "Cold start"):
        assert f"<h2>{title}</h2>" in html
    for title in ("Offline", "Batch sweep", "Threads sweep"):
        assert f"<h3>{title}</h3>" in html
    assert "powersave" in html and "RAPL package-0" in html and "51 … 63" in html
    first = rows(html, "Latency of one run at a time")[1]
    assert first[1:5] == ["1.2", "1.56", "2.64", "1.32"]
    assert first[7] == "1.75 (1.67 … 1.83)" and first[10] == "+0.40 (+0.10 … +0.70)"
    throughput = rows(html, "Throughput")
    scenarios = [row[1] for row in throughput]
    assert (scenarios.count("offline"), scenarios.count("sweep-batch")) == (60, 30)
    offline, sweep = throughput[1], throughput[-1]
    assert offline[2:5] == ["2", "4", "1"] and offline[7:] == ["–", "–", "400"]
    assert sweep[1:5] == ["sweep-batch", "16", "4", "1"] and sweep[6] == "–" and sweep[7] != "–"


def test_what_was_not_measured_leaves_no_picture_and_no_column() -> None:
    report = measured("alone", "int8", 1.2, 0.83, scenarios=False)
    for name in ("accuracy", "host", "memory"):
        del report[name]
    report["latency"] |= {"p90_ms": None, "p99_ms": None, "fp32": None}
    html = bench([report])
    assert "p50 ms" in html and "p90 ms" not in html and "accuracy %" not in html
    assert re.findall("<h2>(.*?)</h2>", html) == [
        *("Latency of one run at a time", "Latency distribution", "Latency over time"),
        *("Size and memory", "How to reproduce"),
    ]
    del report["latency"], report["size"]
    html = bench([report])
    assert pictures(html) == []
    assert re.findall("<h2>(.*?)</h2>", html) == ["How to reproduce"]


def test_a_distribution_is_drawn_where_the_runs_were() -> None:
    html = bench([measured("slow", "fp32", 4.0, 0.84), measured("fast", "int8", 1.0, 0.84)])
    svg = pictures(html)[0]
    drawn = {}
    for group in svg.iter("g"):
        said = (group.findtext("title") or "").split(":")[0]
        bars = next(line for line in group.iter("polyline") if "bar" in line.attrib["class"])
        places = [tuple(map(float, p.split(","))) for p in bars.attrib["points"].split()]
        drawn[said] = min(places, key=lambda place: place[1])[0]  # of the highest bar
    assert drawn["fast"] < drawn["slow"] - 100
    ticks = {
        t.text: float(t.attrib["x"]) for t in svg.iter("text") if t.get("text-anchor") == "middle"
    }
    assert ticks["1"] - 10 < drawn["fast"] < ticks["2"] < drawn["slow"] < ticks["5"]


# -- Pareto -------------------------------------------------------------------------------------


def test_the_line_holds_what_nothing_beats_in_both() -> None:
    html = "\n".join(pareto.sections(field()))
    optimal = {row[1]: row[-1] for row in rows(html, "Accuracy against latency")}
    assert [name.split("-", 1)[1] for name, on in optimal.items() if on == "yes"] == [
        *("openvino-cpu-int8", "tensorrt-fp16", "openvino-cpu-fp32")
    ]


def test_only_what_compares_is_in_one_picture() -> None:
    first, second = (measured(f"vit-{i}", "int8", i, 0.83) for i in (1, 2))
    other = measured("vit-3", "int8", 3, 0.5, cpu="Another CPU")
    for report in (first, second, other):
        report["latency"]["fp32"] = None
    html = "\n".join(pareto.sections([first, second, other]))
    assert html.count('role="img"') == 1 and "vit-3" not in html
    second["accuracy"]["data"] = "other images"
    assert "\n".join(pareto.sections([first, second, other])) == ""


def test_fp32_is_a_point_though_only_int8_was_given() -> None:
    html = "\n".join(pareto.sections([measured("vit-onnxruntime-cpu-int8", "int8", 1.2, 0.83)]))
    assert [row[1:4] for row in rows(html, "Accuracy against latency")] == [
        ["vit-onnxruntime-cpu-int8", "INT8", "83.00"],
        ["vit_small_patch16_224-onnxruntime-cpu-fp32", "FP32", "84.00"],
    ]


def test_two_devices_with_the_same_processor_are_told_apart() -> None:
    reports = [measured("vit-int8", "int8", ms, 0.83) for ms in (1.0, 2.0)]
    html = bench([{**r, "device": f"ssh://board{i}"} for i, r in enumerate(reports, 1)])
    labels = [row[0] for row in rows(html, "Latency of one run at a time")]
    assert labels == [f"vit-int8 on ssh://board{i} (Some CPU 8 @ 3.0 GHz)" for i in (1, 2)]
    assert html.count("<h3>top-1: validation, ssh://board") == 2
    assert "<dt>device</dt><dd>ssh://board2</dd>" in html


@pytest.mark.parametrize("constant_ms", [0.0, 1.0, 2.0, 0.3])
def test_runs_that_all_take_the_same_time_are_drawn(constant_ms: float) -> None:
    report = measured("a", "int8", 1.2, 0.83)
    report["latency"] |= {"p50_ms": constant_ms, "p90_ms": constant_ms, "fp32": None}
    report["latency"]["distribution"] = {
        "quantiles_ms": [constant_ms] * 101,
        "series": [[0.0, constant_ms]],
    }
    assert ("<h2>Latency distribution</h2>" in bench([report])) == (constant_ms > 0)


# -- gate ---------------------------------------------------------------------------------------


def test_the_gate_page_says_what_decided_and_what_would() -> None:
    html = gates.page(gates.three(), "vitedge gate artifacts/a --max-drop 0.5")
    text = Page(html).text
    assert "vitedge gate: ✗ failed" in text
    assert "3 artifacts: 1 failed, 1 inconclusive, 1 passed. Each bound" in text
    limits = rows(html, "Limits")
    assert len(limits) == 12 and limits[0][1:5] == [
        "✗ failed",
        "drop ≤ 0.5 pp",
        "1.3 pp",
        "1 … 1.6",
    ]
    assert limits[4][1] == "? inconclusive" and limits[4][-1] == "17,300"
    assert limits[3][2:4] == ["size ≤ 25 MB", "22 MB"]
    assert "vitedge gate artifacts/a --max-drop 0.5" in text
    assert "vitedge export timm:vit_small_patch16_224 --target onnxruntime-cpu --int8" in text
    assert "Error against depth" in text and "Manifest" in text and "cdcdcd" in text


def test_the_details_of_what_passed_are_folded() -> None:
    page = Page(gate(*gates.three()))
    inside = [a for a in page.all("details")]
    assert ["open" in a for a in inside] == [True, True, False]


def test_a_limit_lies_on_the_same_side_as_in_the_numbers() -> None:
    html = gate(gates.shown("good", "passed", 0.1), gates.shown("bad", "failed", 1.3))
    svg = pictures(html)[0]
    assert "drop" in svg.attrib["aria-label"]
    for group in svg.iter("g"):
        dot = float(next(group.iter("circle")).attrib["cx"])
        limit = next(x for x in group.iter("polyline") if x.attrib["class"] == "limit")
        at = float(limit.attrib["points"].split(",")[0])
        assert (dot > at) == (group.findtext("title") or "").startswith("bad")


def test_limits_and_values_without_end_are_written_and_not_drawn() -> None:
    artifact = gates.shown("a", "failed", 1.3)
    checks = (
        gates.check("drop_pp", "passed", 0.1, limit=np.inf, interval=(0.0, 0.2)),
        gates.check("sqnr_db", "passed", np.inf, bound="min", limit=30.0),
        gates.check("p90_ms", "inconclusive", 1.0, interval=(0.9, np.inf)),
        gates.check("speedup", "failed", None, bound="min"),
    )
    html = gate(replace(artifact, judged=msgspec.structs.replace(artifact.judged, checks=checks)))
    assert "with its interval</h2>" not in html
    shown = [row[2:5] for row in rows(html, "Limits")]
    assert shown[:2] == [["drop ≤ ∞ pp", "0.1 pp", "0 … 0.2"], ["SQNR ≥ 30 dB", "∞ dB", "–"]]
    assert shown[3][1:] == ["–", "–"]


def per_image(labels: list[int], fp32: list[int] | None, artifact: list[int]) -> PerImage:
    """Evidence of a few images, all of them disagreeing ones shown."""
    count = len(labels)
    pixels = np.arange(count * 8 * 8 * 3, dtype=np.uint8).reshape(count, 8, 8, 3)
    return PerImage(
        digests=np.arange(count, dtype=np.uint64),
        labels=np.array(labels, np.int32),
        fp32=None if fp32 is None else np.array(fp32, np.uint16),
        artifact=np.array(artifact, np.uint16),
        worst=np.array([count - 1, 0], np.int64),
        thumbnails=pixels[[count - 1, 0]],
    )


def test_confusion_counts_what_each_class_lost_and_gained() -> None:
    evidence = per_image([0, 0, 1, 1, 2], [0, 0, 1, 0, 0], [2, 0, 0, 1, 1])
    html = "\n".join(disagreement.confusion(evidence, ("cat", "dog", "eel")))
    assert "on 4 of 5 images: of these FP32 had 2 right, and the artifact has 1 right" in html
    assert rows(html, "Classes that moved") == [
        ["cat", "2", "2", "1", "1", "0", "eel ×1"],
        ["dog", "2", "1", "1", "1", "1", "cat ×1"],
    ]
    moves = rows(html, "Choices that changed")
    assert ["cat", "dog", "2", "0"] in moves and ["cat", "eel", "1", "1"] in moves


def test_a_label_out_of_all_bounds_takes_no_memory() -> None:
    evidence = per_image([2**31 - 1, -1, 1], [1, 1, 1], [2, 2, 2])
    html = "\n".join(disagreement.confusion(evidence, ("cat", "dog")))
    assert rows(html, "Classes that moved") == [["dog", "1", "1", "0", "1", "0", "class 2 ×1"]]


def test_thumbnails_are_the_pixels_with_the_three_classes() -> None:
    evidence = per_image([0, 0, 1], [0, 0, 1], [2, 0, 0])
    html = "\n".join(disagreement.thumbnails(evidence, ("cat", "dog")))
    images = Page(html).all("img")
    assert images[0]["alt"] == "image 3: labelled dog, FP32 chose dog, artifact cat"
    assert images[1]["alt"] == "image 1: labelled cat, FP32 chose cat, artifact class 2"
    data = base64.b64decode(images[0]["src"].split(",")[1])
    assert (np.asarray(Image.open(io.BytesIO(data))) == evidence.thumbnails[0]).all()


@pytest.mark.parametrize("missing", ["fp32", "labels"])
def test_evidence_without_choices_shows_images_alone(missing: str) -> None:
    evidence = per_image([0, 0, 1], [0, 0, 1], [2, 0, 0])
    empty = {"fp32": None, "labels": np.zeros(0, np.int32)}
    evidence = replace(evidence, **{missing: empty[missing]})
    assert "\n".join(disagreement.confusion(evidence, ("cat", "dog"))) == ""
    assert 'alt="image 3"' in "\n".join(disagreement.thumbnails(evidence, ("cat", "dog")))


def test_an_artifact_that_agrees_everywhere_says_so() -> None:
    evidence = replace(
        per_image([0, 1], [0, 1], [0, 1]),
        worst=np.zeros(0, np.int64),
        thumbnails=np.zeros((0, 0, 0, 3), np.uint8),
    )
    html = gate(gates.shown("a", "passed", 0.0, per_image=evidence))
    assert "choose the same class on all 2 images" in html and "<img" not in html


def test_a_report_alone_names_the_commands_that_show_more() -> None:
    bare = {"schema": "vitedge.report/1", "artifact": "a", "model": "m", "precision": "int8"}
    artifact = gates.shown(
        "a", "passed", 0.1, report=bare, manifest=None, labels=(), per_image=None
    )
    html = gate(artifact)
    assert "run vitedge validate" in html and "<h3>" not in html
    assert len(pictures(html)) == 2  # the intervals of the drop and of the speed-up

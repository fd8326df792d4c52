"""The pages: well-formed, harmless, legible, and not too much, whatever there is to show."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import replace as change
from PIL import Image

from tests.support import page_artifacts as gates
from tests.support.page_reports import HOSTILE, field, host, measured, with_part
from vitedge.core.measurements import Distribution
from vitedge.core.report import SCHEMA, Report
from vitedge.measure.accuracy.evidence import PerImage
from vitedge.show.page import disagreement, pareto, shell
from vitedge.show.page.bench import render
from vitedge.show.page.chart import linear, logarithmic

Element = ElementTree.Element


def bench(*reports):
    return render(reports, "vitedge bench")


def gate(*artifacts):
    return gates.page(artifacts)


def parse(html):
    """A page as XML, which is stricter than a browser."""
    closed = re.sub(r"<(meta|img|wbr)\b([^>]*)>", r"<\1\2/>", html.removeprefix("<!doctype html>"))
    return ElementTree.fromstring(closed.replace("<details open>", '<details open="">'))


def rows(page, label):
    """The cells of a table's body, as text."""
    body = page.find(f".//div[@aria-label='{label}, scrolls sideways']/table/tbody")
    return [["".join(cell.itertext()) for cell in line] for line in body]


def pictures(page):
    return page.findall(".//svg[@role='img']")


def headings(page):
    return [heading.text for heading in page.iter("h2")]


# -- all pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["bench", "gate"])
def test_a_page_is_well_formed_labelled_and_alone(which):
    html = bench(*field()) if which == "bench" else gate(*gates.three())
    page = parse(html)
    assert len(pictures(page)) >= 5
    for svg in pictures(page):
        assert len(svg.attrib["aria-label"]) > 20
        numbers = re.findall(r'="(-?[\d.]+|nan|-?inf)"', ElementTree.tostring(svg, "unicode"))
        assert numbers and all(np.isfinite(float(number)) for number in numbers)
    assert all(cell.attrib["scope"] in ("col", "row") for cell in page.iter("th"))
    assert all(image.attrib["alt"].startswith("image ") for image in page.iter("img"))
    boxes = page.findall(".//div[@class='scroll']")
    assert boxes and all(box.attrib["tabindex"] == "0" for box in boxes)
    assert all(box.attrib["aria-label"] for box in boxes)
    # no network and no script
    assert not {"script", "link", "iframe", "object"} & {element.tag for element in page.iter()}
    assert "://" not in html and "url(" not in html and "@import" not in html
    addresses = [e.attrib[k] for e in page.iter() for k in ("src", "href") if k in e.attrib]
    assert all(address.startswith("data:image/") for address in addresses)
    policy = page.find(".//meta[@http-equiv]")
    assert policy.attrib["content"].startswith("default-src 'none'")


def test_whatever_files_say_is_shown_and_does_nothing():
    report = measured(HOSTILE, "int8", 1.2, 0.83, host=host(HOSTILE))
    for section, part in (("accuracy", "data"), ("energy", "source")):
        report = with_part(report, section, **{part: HOSTILE})
    report = with_part(report, "conditions", warnings=(HOSTILE,))
    layers = (gates.layer(1, HOSTILE), gates.layer(2))
    manifest = with_part(gates.manifest_of(HOSTILE), "quantization", layers=layers)
    manifest = change(manifest, tools={HOSTILE: HOSTILE})
    hostile = gates.shown(
        *(HOSTILE, "failed", 1.0), report=report, manifest=manifest, labels=(HOSTILE,) * 10
    )
    judged = change(hostile.judged, path=HOSTILE, against=HOSTILE)
    other = measured("b", "fp32", 2.0, 0.84)
    for html in (bench(report, other), gate(replace(hostile, judged=judged))):
        page = parse(html)
        assert "script" not in {element.tag for element in page.iter()}
        assert not any(name.startswith("on") for e in page.iter() for name in e.attrib)
        assert "alert('1')" in "".join(page.itertext()) and "\x1b" not in html


def test_pages_are_made_without_a_runtime():
    heavy = ("torch", "onnx", "onnxruntime", "openvino", "rich", "jinja2")
    code = (
        "import sys\nfrom vitedge.show.page import bench, gate, artifacts\n"
        f"assert not set({heavy}) & set(sys.modules), sorted(set({heavy}) & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_colour_of_text_is_legible_on_every_ground():
    style = (Path(shell.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")

    def luminance(colour):
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
def test_an_axis_holds_its_values_and_marks_two_or_more(axis, values):
    drawn = axis("x", values)
    assert all(0 <= drawn.share(value) <= 1 for value in values)
    shown = [name for _, name in drawn.ticks]
    assert len(set(shown)) == len(shown) <= 14
    assert all(0 <= drawn.share(tick) <= 1.0001 for tick, _ in drawn.ticks)
    assert len(shown) >= 2 or (axis is logarithmic and values[1] < 1.5 * values[0])


def test_thirty_large_artifacts_stay_under_two_megabytes():
    parts = {
        "per_image": gates.per_image(50_000, 4_000, side_px=64),
        "labels": tuple(f"n{i:03d}" * 40 for i in range(10)),
        "manifest": gates.manifest_of("m", layers=200),
    }
    names = [f"vit_large-{i}-" + "x" * 60 for i in range(30)]
    answers = [*["passed"] * 7, "failed", *["passed"] * 22]
    artifacts = [
        gates.shown(name, answer, i / 30, images=100, **parts)
        for i, (name, answer) in enumerate(zip(names, answers, strict=True))
    ]
    html = gate(*artifacts)
    assert len(html.encode()) < 2_000_000
    assert "Left out, for the page to stay small: vit_large-" in html
    assert html.index("<h2>vit_large-7-") < html.index("<h2>vit_large-0-")  # failed: first
    assert len(bench(*(artifact.files.report for artifact in artifacts)).encode()) < 2_000_000


# -- bench --------------------------------------------------------------------------------------


def test_what_was_not_measured_leaves_no_picture_and_no_column():
    report = measured("alone", "int8", 1.2, 0.83, scenarios=False)
    report = change(report, accuracy=None, host=None, memory=None)
    report = with_part(report, "latency", p90_ms=None, p99_ms=None, fp32=None)
    html = bench(report)
    assert "p50 ms" in html and "p90 ms" not in html and "top-1 %" not in html
    assert headings(parse(html)) == [
        *("Accuracy and latency", "Latency distribution", "Latency over time"),
        *("Size and memory", "How to reproduce"),
    ]
    page = parse(bench(change(report, latency=None, size=None)))
    assert pictures(page) == [] and headings(page) == ["How to reproduce"]


def test_a_distribution_is_drawn_where_the_runs_were():
    html = bench(measured("slow", "fp32", 4.0, 0.84), measured("fast", "int8", 1.0, 0.84))
    svg = pictures(parse(html))[0]
    drawn = {}
    for group in svg.iter("g"):
        name = (group.findtext("title") or "").split(":")[0]
        bars = next(line for line in group.iter("polyline") if "bar" in line.attrib["class"])
        places = [tuple(map(float, p.split(","))) for p in bars.attrib["points"].split()]
        drawn[name] = min(places, key=lambda place: place[1])[0]  # of the highest bar
    assert drawn["fast"] < drawn["slow"] - 100
    marks = svg.findall("text[@text-anchor='middle']")
    ticks = {mark.text: float(mark.attrib["x"]) for mark in marks}
    assert ticks["1"] - 10 < drawn["fast"] < ticks["2"] < drawn["slow"] < ticks["5"]


@pytest.mark.parametrize("constant_ms", [0.0, 1.0, 2.0, 0.3])
def test_runs_that_all_take_the_same_time_are_drawn(constant_ms):
    report = with_part(
        *(measured("a", "int8", 1.2, 0.83), "latency"),
        **{"p50_ms": constant_ms, "p90_ms": constant_ms, "fp32": None},
        distribution=Distribution(quantiles_ms=(constant_ms,) * 101, series=((0.0, constant_ms),)),
    )
    assert ("Latency distribution" in headings(parse(bench(report)))) == (constant_ms > 0)


def ranking(*reports):
    """Of each Pareto picture its points by latency, and whether they are on the line."""
    tables = [table for _, _, table in pareto.pictures(reports)]
    return [[(point.name, point.best) for point in table.rows] for table in tables]


def test_the_line_holds_what_nothing_beats_in_both():
    (points,) = ranking(*field())
    assert [name.split("-", 1)[1] for name, best in points if best] == [
        *("openvino-cpu-int8", "tensorrt-fp16", "openvino-cpu-fp32")
    ]
    page = parse(bench(*field()))
    hovers = [title.text or "" for title in page.iter("title")]
    for number, name, *_ in rows(page, "Accuracy against latency"):  # as in the picture
        assert any(hover.startswith(f"{number}. {name}: ") for hover in hovers)


def test_only_what_compares_is_in_one_picture():
    first, second, other = (
        with_part(measured(f"vit-{i}", "int8", i, 0.83, host=host(cpu)), "latency", fp32=None)
        for i, cpu in ((1, "A CPU"), (2, "A CPU"), (3, "Another CPU"))
    )
    assert ranking(first, second, other) == [[("vit-1", True), ("vit-2", False)]]
    assert ranking(first, with_part(second, "accuracy", data="other images"), other) == []


def test_fp32_is_a_point_though_only_int8_was_given():
    int8, fp32 = "vit-onnxruntime-cpu-int8", "vit_small_patch16_224-onnxruntime-cpu-fp32"
    assert ranking(measured(int8, "int8", 1.2, 0.83)) == [[(int8, True), (fp32, True)]]


def test_two_devices_with_the_same_processor_are_told_apart():
    devices = [f"ssh://board{i}" for i in (1, 2)]
    html = bench(*(measured("vit-int8", "int8", 1.0, 0.83, device=name) for name in devices))
    labels = [row[0] for row in rows(parse(html), "Accuracy and latency")]
    assert labels == [f"vit-int8 on {device} (Some CPU 8 @ 3.0 GHz)" for device in devices]
    assert html.count("<h3>top-1: validation, ssh://board") == 2
    assert "<dt>device</dt><dd>ssh://board2</dd>" in html


# -- gate ---------------------------------------------------------------------------------------


def test_limits_and_values_without_end_are_written_and_not_drawn():
    artifact = gates.shown("a", "failed", 1.3)
    checks = (
        gates.check("drop_pp", "passed", 0.1, limit=np.inf, interval=(0.0, 0.2)),
        gates.check("sqnr_db", "passed", np.inf, bound="min", limit=30.0),
        gates.check("p90_ms", "inconclusive", 1.0, interval=(0.9, np.inf)),
        gates.check("speedup", "failed", None, bound="min"),
    )
    page = parse(gate(replace(artifact, judged=change(artifact.judged, checks=checks))))
    assert not any("with its interval" in (heading or "") for heading in headings(page))
    shown = [row[1:5] for row in rows(page, "Limits")]
    assert shown[0] == ["drop", "0.1 pp", "0 … 0.2", "≤ ∞ pp"]
    assert shown[1] == ["SQNR", "∞ dB", "", "≥ 30 dB"]
    assert shown[3][:3] == ["speed-up", "–", ""]


def per_image(labels, fp32, artifact, /, **parts):
    """Evidence of a few images, all of them disagreeing ones shown."""
    count = len(labels)
    pixels = np.arange(count * 8 * 8 * 3, dtype=np.uint8).reshape(count, 8, 8, 3)
    evidence = PerImage(
        digests=np.arange(count, dtype=np.uint64),
        labels=np.array(labels, np.int32),
        fp32=np.array(fp32, np.uint16),
        artifact=np.array(artifact, np.uint16),
        worst=np.array([count - 1, 0], np.int64),
        thumbnails=pixels[[count - 1, 0]],
    )
    return replace(evidence, **parts)


def test_a_label_out_of_all_bounds_takes_no_memory():
    evidence = per_image([2**31 - 1, -1, 1], [1, 1, 1], [2, 2, 2])
    classes, _ = disagreement.confusion(evidence, ("cat", "dog")).tables[0]
    assert classes.rows == [("dog", 1, 1, 0, 1, 0, "class 2 ×1")]


@pytest.mark.parametrize("missing", [{"fp32": None}, {"labels": np.zeros(0, np.int32)}])
def test_evidence_without_choices_shows_images_alone(missing):
    evidence = per_image([0, 0, 1], [0, 0, 1], [2, 0, 0], **missing)
    assert disagreement.confusion(evidence, ("cat", "dog")) is None
    worst = disagreement.thumbnails(evidence, ("cat", "dog"))[0]
    assert worst["caption"] == "image 3"
    data = base64.b64decode(worst["uri"].split(",")[1])
    assert (np.asarray(Image.open(io.BytesIO(data))) == evidence.thumbnails[0]).all()


def test_an_artifact_that_agrees_everywhere_says_so():
    none = {"worst": np.zeros(0, np.int64), "thumbnails": np.zeros((0, 0, 0, 3), np.uint8)}
    evidence = per_image([0, 1], [0, 1], [0, 1], **none)
    html = gate(gates.shown("a", "passed", 0.0, per_image=evidence))
    assert "choose the same class on all 2 images" in html and "<img" not in html


def test_a_report_alone_names_the_commands_that_show_more():
    identity = {"artifact": "a", "model": "m", "target": "t", "precision": "int8"}
    bare = {"report": Report(schema=SCHEMA, files={}, **identity), "manifest": None}
    html = gate(gates.shown("a", "passed", 0.1, labels=(), per_image=None, **bare))
    assert "run vitedge validate" in html and "<h3>" not in html
    assert len(pictures(parse(html))) == 2  # the intervals of the drop and of the speed-up

"""What every released version wrote is opened, run, judged and shown by today's, in full.

A set is never changed: where a test fails, it is today's reader that is wrong.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

import vitedge as ve
from tests.support.freeze import FROZEN, RUNNABLE
from vitedge.core import report
from vitedge.core.bundle import MANIFEST, REPORT, open_bundle, read_manifest
from vitedge.core.report import Report
from vitedge.gate import baseline
from vitedge.measure.accuracy import evidence
from vitedge.show import csv
from vitedge.show.page import bench as page
from vitedge.show.terminal import bench as bench_tables
from vitedge.show.terminal import tables

VERSIONS = sorted(
    (path.name for path in FROZEN.iterdir()), key=lambda v: [int(n) for n in v.split(".")]
)
NOT_FROZEN = {"sweep_batch", "device"}
"""Of the types of others: a sweep's, a text."""


def lost(before, after, path="$"):
    """Where a document says what another does not."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}"
            else:
                yield from lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from lost(*pair, f"{path}[{index}]")
    elif before != after:
        yield path


def written(struct):
    """As it would be written today."""
    return json.loads(msgspec.json.encode(struct))


def test_what_lost_finds():
    assert list(lost({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}], "new": 3})) == []
    assert list(lost({"a": [1, {"b": 2}], "c": None}, {"a": [1, {"b": 3}]})) == ["$.a[1].b", "$.c"]


@pytest.fixture(params=VERSIONS)
def frozen(request):
    return FROZEN / request.param


@pytest.fixture
def released(frozen, tmp_path):
    """A copy of the set, to be measured and written to."""
    return shutil.copytree(frozen, tmp_path / "set")


def test_there_is_a_set_of_each_version_from_0_2_on():
    assert VERSIONS[0] == "0.2.0"
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    headings = [line[3:] for line in changelog.splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(headings)
    assert headings[-1] == "0.1.0" and ve.__version__ in headings[:2]
    assert headings[0] in ("Unreleased", ve.__version__)
    assert set(headings) - {"Unreleased", "0.1.0"} == set(VERSIONS)


def test_reports_are_read_in_full(frozen):
    paths = sorted(frozen.rglob(REPORT))
    assert len(paths) >= 4
    for path in paths:
        assert list(lost(json.loads(path.read_text()), written(report.read(path)))) == []


def test_the_sets_have_every_section_of_a_report():
    keys = {key for path in FROZEN.rglob(REPORT) for key in json.loads(path.read_text())}
    assert set(Report.__struct_fields__) - keys == NOT_FROZEN
    assert keys <= set(Report.__struct_fields__)


def test_manifests_are_read_in_full(frozen):
    paths = sorted(frozen.rglob(MANIFEST))
    assert {read_manifest(path.parent).model.task for path in paths} >= {
        "classification",
        "segmentation",
    }
    for path in paths:
        read = written(read_manifest(path.parent))
        assert list(lost(json.loads(path.read_text()), read)) == []


def test_a_bundle_runs_and_gives_what_it_gave(released):
    bundle = released / RUNNABLE
    before = report.read(bundle / REPORT)
    measured = ve.validate(bundle, "digits")
    assert measured.parity is None or not measured.parity.broken
    assert measured.accuracy.n == before.accuracy.n == 719
    assert abs(measured.accuracy.artifact - before.accuracy.artifact) < 0.005
    assert measured.numerics.sqnr_db > before.numerics.sqnr_db - 3
    with ve.open(bundle) as opened:
        image = opened.golden().images[0]
        assert opened.predict(image).top[0].label in opened.labels()


def test_a_baseline_and_evidence_judge(released):
    bundle = released / RUNNABLE
    (accepted,) = baseline.read(released / "baseline.npz").subjects.values()
    assert accepted.report.artifact == bundle.name
    for kept in (accepted.evidence, evidence.read(bundle)):
        assert (kept.about.metric, len(kept.per_image.labels)) == ("top1", 719)
    limits = {"max_drop_pp": 1, "min_sqnr_db": 30, "max_slowdown": 1.5}
    verdict = ve.gate([bundle], baseline=released / "baseline.npz", **limits)
    assert verdict.answer == "passed"
    metrics = {check.metric for judged in verdict.judged for check in judged.checks}
    assert {"drop_pp", "sqnr_db", "slowdown"} <= metrics


def test_a_signature_verifies(released):
    signature = ve.verify(released / RUNNABLE, trust=released / "release.pub")
    assert signature.signed_at
    opened = open_bundle(released / RUNNABLE)
    assert opened.manifest.name == RUNNABLE


def test_reports_are_shown(frozen, tmp_path, capsys):
    read = report.read(frozen / RUNNABLE / REPORT)
    tables.show(tables.reports([read], "as it was"))
    for table in bench_tables.tables([read]):
        tables.show(table)
    assert "tiny-onnxruntime-cpu-int8" in capsys.readouterr().out
    csv.write([read], tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().count("\n") > 5
    assert "tiny-onnxruntime-cpu-int8" in page.render([read], "vitedge bench")

"""report.json gathers what was measured, and never mixes two models."""

import json

import msgspec
import pytest

from tests.support.page_reports import measured
from vitedge.core import report
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine
from vitedge.core.measurements import Memory
from vitedge.core.report import Numerics, Recommendation, Report, Size

SIZE = Size(bytes=10, fp32_bytes=40)
MEMORY = Memory(peak_rss_bytes=5, device_bytes=None)
MEASURED = measured("any", "fp32", 1.0, 0.84)
LATENCY, DRIFT, CONDITIONS = MEASURED.latency, MEASURED.drift, MEASURED.conditions
RECOMMENDATION = Recommendation(
    precision="int8", reason="faster", candidates=(), confidence=0.95, max_drop_pp=0.5
)
NUMERICS = Numerics(sqnr_db=35.0, max_abs_error=0.1, cosine=0.999, n=8, data="golden")


@pytest.fixture
def bundle(tmp_path, small_bundle):
    return small_bundle(tmp_path / "small-fp32")


def merge(bundle, **sections):
    return report.merge(bundle, Report(**report.identity(bundle), **sections))


def stored(bundle):
    return json.loads((bundle / "report.json").read_text())


def test_a_report_says_what_it_is_about_and_nothing_else_is_left_beside_the_files(bundle):
    before = {path.name for path in bundle.iterdir()}
    merged = merge(open_bundle(bundle), size=SIZE)
    assert msgspec.to_builtins(merged) == stored(bundle)
    assert merged.schema == "vitedge.report/1"
    assert (merged.artifact, merged.model) == ("small-fp32", "small")
    assert (merged.target, merged.precision) == ("onnxruntime-cpu", "fp32")
    assert stored(bundle)["size"] == {"bytes": 10, "fp32_bytes": 40}
    assert {path.name for path in bundle.iterdir()} == before | {"report.json"}


def test_a_section_new_or_measured_again_leaves_the_others_as_they_are(bundle):
    merge(open_bundle(bundle), size=SIZE, numerics=NUMERICS)
    merge(open_bundle(bundle), memory=MEMORY)
    merged = stored(bundle)
    assert merged["size"] == {"bytes": 10, "fp32_bytes": 40}
    assert merged["numerics"]["sqnr_db"] == 35.0
    assert merged["memory"] == {"peak_rss_bytes": 5, "device_bytes": None}
    merge(open_bundle(bundle), size=Size(bytes=11, fp32_bytes=None))
    assert stored(bundle)["size"] == {"bytes": 11, "fp32_bytes": None}
    assert stored(bundle)["numerics"]["cosine"] == 0.999


def test_the_report_of_another_models_bytes_is_started_afresh(bundle, tmp_path, small_bundle):
    merge(open_bundle(bundle), size=SIZE)
    other = small_bundle(tmp_path / "other", b"other weights")
    (bundle / "report.json").rename(other / "report.json")
    merged = merge(open_bundle(other), numerics=NUMERICS)
    assert merged.size is None
    assert merged.artifact == "other"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"schema": "vitedge.report/2"}',
        b'{"schema": "vitedge.report/1"}',
    ],
)
def test_a_report_that_cannot_be_read_is_not_overwritten(bundle, content):
    (bundle / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=r"report\.json") as caught:
        merge(open_bundle(bundle), size=SIZE)
    assert "delete it" in caught.value.fix
    assert (bundle / "report.json").read_bytes() == content
    with pytest.raises(InputError):
        report.check_writable(open_bundle(bundle))


def test_a_report_that_cannot_be_written_is_the_users_mistake(bundle):
    opened = open_bundle(bundle)
    (bundle / "report.json").mkdir()
    with pytest.raises(InputError, match=r"report\.json") as caught:
        merge(opened, size=SIZE)
    assert caught.value.fix
    assert not list(bundle.glob(".report*"))


def test_a_new_latency_takes_the_drift_of_an_older_one_along(bundle):
    opened = open_bundle(bundle)
    merge(opened, latency=LATENCY, drift=DRIFT, numerics=NUMERICS)
    merged = merge(opened, latency=LATENCY)
    assert "drift" not in stored(bundle)
    assert merged.drift is None and merged.numerics == NUMERICS


def test_a_recommendation_gives_way_to_another_or_to_none(bundle):
    opened = open_bundle(bundle)
    merge(opened, numerics=NUMERICS)
    assert report.recommend(opened, RECOMMENDATION).recommendation == RECOMMENDATION
    merged = report.recommend(opened, None)
    assert merged.recommendation is None and merged.numerics == NUMERICS
    assert "recommendation" not in stored(bundle)


def test_what_another_machine_timed_gives_way_and_accuracy_stays(bundle):
    opened, machine = open_bundle(bundle), describe_machine(threads=1)
    other = msgspec.structs.replace(machine, cpu="Another CPU")
    merge(opened, numerics=NUMERICS, memory=MEMORY, host=other)
    merged = merge(opened, host=machine)
    assert merged.host == machine
    assert merged.memory is None and merged.numerics == NUMERICS


def test_more_threads_make_no_other_machine(bundle):
    opened, machine = open_bundle(bundle), describe_machine(threads=1)
    merge(opened, memory=MEMORY, host=machine)
    merged = merge(opened, size=SIZE, host=msgspec.structs.replace(machine, threads=2))
    assert merged.host == machine  # of what was timed
    assert merged.memory == MEMORY


def test_timing_on_other_threads_takes_the_latency_along(bundle):
    opened, machine = open_bundle(bundle), describe_machine(threads=1)
    merge(opened, latency=LATENCY, memory=MEMORY, host=machine, conditions=CONDITIONS)
    two = msgspec.structs.replace(machine, threads=2)
    merged = merge(opened, host=two, conditions=CONDITIONS)
    assert merged.latency is None and merged.memory == MEMORY and merged.host == two


def test_of_a_device_only_what_its_machine_measured_is_kept(bundle):
    opened, device = open_bundle(bundle), "ssh://orin"
    machine = describe_machine(threads=1)

    def timed(**sections):
        known = {"host": machine, "latency": LATENCY, "conditions": CONDITIONS, **sections}
        return Report(**report.identity(opened), **known)

    long = timed(drift=DRIFT, offline=MEASURED.offline, recommendation=RECOMMENDATION)
    report.merge_from_device(opened, long, device, "orin")
    again = report.merge_from_device(opened, timed(), device, "orin")
    assert again.device == device and again.offline == MEASURED.offline
    assert again.drift is None and again.recommendation is None  # of a longer run than this one
    upgraded = timed(host=msgspec.structs.replace(machine, cpu="Another CPU"))
    assert report.merge_from_device(opened, upgraded, device, "orin").offline is None
    assert not (bundle / "report.json").exists()

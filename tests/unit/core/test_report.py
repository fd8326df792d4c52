"""report.json gathers what was measured, and never mixes two models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from vitedge.core import report
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine
from vitedge.core.measurements import Memory
from vitedge.core.report import Numerics, Size

SIZE = Size(bytes=10, fp32_bytes=40)
NUMERICS = Numerics(sqnr_db=35.0, max_abs_error=0.1, cosine=0.999, n=8, data="golden")


@pytest.fixture
def bundle(tmp_path: Path, small_bundle: Callable[..., Path]) -> Path:
    return small_bundle(tmp_path / "small-fp32")


def stored(bundle: Path) -> dict[str, object]:
    return json.loads((bundle / "report.json").read_text())


def test_a_report_says_what_it_is_about(bundle: Path) -> None:
    merged = report.merge(open_bundle(bundle), size=SIZE)
    assert merged == stored(bundle)
    assert merged["schema"] == "vitedge.report/1"
    assert (merged["artifact"], merged["model"]) == ("small-fp32", "small")
    assert (merged["target"], merged["precision"]) == ("onnxruntime-cpu", "fp32")
    assert merged["size"] == {"bytes": 10, "fp32_bytes": 40}


def test_a_new_section_leaves_the_others_as_they_are(bundle: Path) -> None:
    report.merge(open_bundle(bundle), size=SIZE, numerics=NUMERICS)
    report.merge(open_bundle(bundle), memory=Memory(peak_rss_bytes=5, device_bytes=None))
    merged = stored(bundle)
    assert merged["size"] == {"bytes": 10, "fp32_bytes": 40}
    assert merged["numerics"]["sqnr_db"] == 35.0
    assert merged["memory"] == {"peak_rss_bytes": 5, "device_bytes": None}


def test_measuring_again_replaces_only_that_section(bundle: Path) -> None:
    report.merge(open_bundle(bundle), size=SIZE, numerics=NUMERICS)
    report.merge(open_bundle(bundle), size=Size(bytes=11, fp32_bytes=None))
    assert stored(bundle)["size"] == {"bytes": 11, "fp32_bytes": None}
    assert stored(bundle)["numerics"]["cosine"] == 0.999


def test_sections_this_version_does_not_know_are_kept(bundle: Path) -> None:
    report.merge(open_bundle(bundle), size=SIZE)
    file = bundle / "report.json"
    file.write_text(json.dumps({**stored(bundle), "energy": {"joules": 3}}))
    report.merge(open_bundle(bundle), numerics=NUMERICS)
    assert stored(bundle)["energy"] == {"joules": 3}


def test_the_report_of_another_models_bytes_is_started_afresh(
    bundle: Path, tmp_path: Path, small_bundle: Callable[..., Path]
) -> None:
    report.merge(open_bundle(bundle), size=SIZE)
    other = small_bundle(tmp_path / "other", b"other weights")
    (bundle / "report.json").rename(other / "report.json")
    merged = report.merge(open_bundle(other), numerics=NUMERICS)
    assert "size" not in merged
    assert merged["artifact"] == "other"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"schema": "vitedge.report/2"}'])
def test_a_report_that_cannot_be_read_is_not_overwritten(bundle: Path, content: bytes) -> None:
    (bundle / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=r"report\.json") as caught:
        report.merge(open_bundle(bundle), size=SIZE)
    assert "delete it" in caught.value.fix
    assert (bundle / "report.json").read_bytes() == content
    with pytest.raises(InputError):
        report.check_writable(open_bundle(bundle))


def test_nothing_but_the_report_is_left_beside_the_files(bundle: Path) -> None:
    before = {path.name for path in bundle.iterdir()}
    report.merge(open_bundle(bundle), size=SIZE)
    assert {path.name for path in bundle.iterdir()} == before | {"report.json"}


def test_a_report_that_cannot_be_written_is_the_users_mistake(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "report.json").mkdir()
    with pytest.raises(InputError, match=r"report\.json") as caught:
        report.merge(opened, size=SIZE)
    assert caught.value.fix
    assert not list(bundle.glob(".report*"))


def test_a_section_that_no_longer_holds_goes(bundle: Path) -> None:
    report.merge(open_bundle(bundle), size=SIZE, numerics=NUMERICS)
    merged = report.merge(open_bundle(bundle), size=None, memory=None)
    assert merged == stored(bundle)
    assert "size" not in merged and "memory" not in merged
    assert merged["numerics"]["sqnr_db"] == 35.0


def test_what_another_machine_timed_gives_way_and_accuracy_stays(bundle: Path) -> None:
    opened, machine = open_bundle(bundle), describe_machine(threads=1)
    other = msgspec.structs.replace(machine, cpu="Another CPU")
    report.merge(
        opened, numerics=NUMERICS, memory=Memory(peak_rss_bytes=5, device_bytes=None), host=other
    )
    merged = report.merge(opened, **report.host_changes(opened, machine))
    assert merged["host"]["cpu"] == machine.cpu
    assert "memory" not in merged and merged["numerics"]["sqnr_db"] == 35.0


def test_more_threads_make_no_other_machine(bundle: Path) -> None:
    opened, machine = open_bundle(bundle), describe_machine(threads=1)
    report.merge(opened, memory=Memory(peak_rss_bytes=5, device_bytes=None), host=machine)
    again = report.host_changes(opened, msgspec.structs.replace(machine, threads=2))
    merged = report.merge(opened, size=SIZE, **again)
    assert merged["host"]["threads"] == 1  # of what was timed
    assert merged["memory"]["peak_rss_bytes"] == 5


def test_of_a_device_only_what_its_machine_measured_is_kept(bundle: Path) -> None:
    opened, device = open_bundle(bundle), "ssh://orin"
    machine = msgspec.to_builtins(describe_machine(threads=1))
    first = {**report.identity(opened), "host": machine}
    long = {**first, "latency": {"n": 9}, "drift": {"slower": True}, "offline": {"points": []}}
    report.merge_from_device(opened, long, device, "orin")
    again = report.merge_from_device(opened, {**first, "latency": {"n": 3}}, device, "orin")
    assert again["latency"] == {"n": 3} and "offline" in again
    assert "drift" not in again  # of a longer run than this one
    upgraded = {**first, "host": {**machine, "cpu": "Another CPU"}, "latency": {"n": 5}}
    assert "offline" not in report.merge_from_device(opened, upgraded, device, "orin")

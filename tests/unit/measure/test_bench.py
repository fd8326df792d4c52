"""What bench cannot do is said before anything runs; numbers of another machine do not stay."""

import json
import shutil

import pytest

from vitedge.core import host
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.manifest import Tensor
from vitedge.core.progress import SILENT
from vitedge.measure.latency.bench import bench_bundles
from vitedge.measure.latency.request import BenchRequest, check
from vitedge.measure.latency.single_stream import time_bundles

OFFLINE = {"scenarios": ("offline",)}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"duration_s": 0.0}, "duration"),
        ({"scenarios": ("single-steam",)}, "single-steam"),
        ({"sweeps": ("thread",)}, "thread"),
        ({"scenarios": ("server",)}, "unknown `scenarios` 'server'"),
        ({**OFFLINE, "against": "another"}, "`against`"),
        ({"streams": 2}, "`streams`"),
        ({**OFFLINE, "streams": 4, "threads": 2}, "too few"),
        ({"sweeps": ("threads",), "threads": 2}, "exclude"),
        ({"sweeps": ("batch",), "batch": 2}, "exclude"),
        ({"sweeps": ("batch",)}, "fixed at batch 1"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_at_once(tmp_path, small_bundle, asked, says):
    image = Tensor(name="x", shape=(1, 8, 8, 3), dtype="uint8", layout="NHWC")
    bundle = open_bundle(small_bundle(tmp_path / "small-fp32", inputs=(image,)))
    request = BenchRequest(**{"duration_s": 1.0, **asked})
    with pytest.raises(InputError, match=says) as caught:
        bench_bundles([bundle], SILENT, request)  # it has no model that could be run
    assert caught.value.fix
    assert not (bundle.path / "report.json").exists()


def test_what_can_be_done_passes(tmp_path, small_bundle):
    image = Tensor(name="x", shape=("batch", 8, 8, 3), dtype="uint8", layout="NHWC")
    bundle = open_bundle(small_bundle(tmp_path / "small-fp32", inputs=(image,)))
    for asked in ({}, {**OFFLINE, "streams": 2}, {"sweeps": ("threads", "batch")}):
        check(BenchRequest(**{"duration_s": 1.0, **asked}), [bundle])


def test_timing_of_another_machine_is_not_kept(tmp_path, bundles):
    path = tmp_path / "digits"
    shutil.copytree(bundles["onnxruntime", "fp32"], path)
    request = BenchRequest(0.01, scenarios=("offline",), threads=1)
    bench_bundles([open_bundle(path)], SILENT, request)
    first = json.loads((path / "report.json").read_text())
    assert "offline" in first
    bench_bundles([open_bundle(path)], SILENT, BenchRequest(0.01, sweeps=("threads",)))
    second = json.loads((path / "report.json").read_text())
    assert second["offline"] == first["offline"]  # other threads, but this machine
    second["host"]["cpu"] = "another CPU"
    (path / "report.json").write_text(json.dumps(second))
    request = BenchRequest(0.01, scenarios=("offline",), threads=1)
    bench_bundles([open_bundle(path)], SILENT, request)
    third = json.loads((path / "report.json").read_text())
    assert "offline" in third and third["host"]["cpu"] != "another CPU"
    assert not {"sweep_threads", "latency"} & set(third)
    assert third.get("numerics") == first.get("numerics")  # those are the artifact's


def test_what_an_export_times_says_on_which_machine(tmp_path, bundles):
    path = tmp_path / "digits"
    shutil.copytree(bundles["onnxruntime", "fp32"], path)
    (path / "report.json").unlink()
    time_bundles([open_bundle(path)], SILENT, duration_s=0.01)
    report = json.loads((path / "report.json").read_text())
    machine = describe_machine(usable_cores())
    assert report["latency"]["p50_ms"] > 0
    assert report["conditions"]["fingerprint"] == host.fingerprint(machine)

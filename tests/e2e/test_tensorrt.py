"""INT8 for TensorRT from a machine with no GPU: what the export proves, and what it leaves."""

from __future__ import annotations

import json

import pytest

from vitedge.core.bundle import open_bundle
from vitedge.core.machine import describe_machine

pytest.importorskip("tensorrt_rtx")

pytestmark = pytest.mark.skipif(
    bool(describe_machine(threads=0).gpus), reason="this machine has a GPU"
)


def check_compiled(path, said):
    """Every product compiles to INT8, every attention to one kernel."""
    compiled = open_bundle(path).manifest.build.compiled
    assert compiled.lost == {}
    assert (compiled.planned, compiled.int8) == (32, 32)
    assert (compiled.attention, compiled.fused) == (4, 4)
    assert f"{path.name}: 32 of 32 planned products in INT8, 4 of 4 attentions fused" in said


def check_report(path, said):
    """The graph keeps its accuracy, and nothing is called measured on the GPU."""
    found = json.loads((path / "report.json").read_text())
    assert not {"accuracy", "numerics", "latency", "recommendation"} & set(found)
    simulated = found["simulation"]
    assert simulated["runtime"].startswith("onnxruntime ")
    assert simulated["accuracy"]["drop_pp"] <= 0.3
    assert simulated["accuracy"]["n"] > 700
    assert simulated["numerics"]["sqnr_db"] >= 30
    assert f"{path.name}: not run: " in said


def test_int8_is_proven_as_far_as_that_goes_without_a_gpu(tmp_path, vitedge):
    flags = ("--num-samples", 64, "--output", tmp_path)
    ran = vitedge("export", "--target", "tensorrt", "--int8", *flags)
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {f"digits-tensorrt-{precision}" for precision in ("fp32", "fp16", "int8")}
    path = tmp_path / "digits-tensorrt-int8"
    check_compiled(path, ran.stdout)
    check_report(path, ran.stderr)
    made = open_bundle(path).manifest
    assert made.quantization.lint == () and made.half.kept == ()
    assert made.build.state == "on the device"
    shown = vitedge("inspect", path).stdout
    assert "32 of 32 planned products in INT8" in shown
    assert "lint for tensorrt: nothing found" in shown
    for command in ("validate", "bench"):
        ran = vitedge(command, path, code=3)
        assert "GPU" in ran.stderr and not ran.stdout


@pytest.mark.heavy
def test_a_dynamic_batch_keeps_all_of_int8(tmp_path, vitedge):
    flags = ("--batch", "dynamic", "--num-samples", 64, "--output", tmp_path)
    ran = vitedge("export", "--target", "rtx-30", "--int8", *flags)
    check_compiled(tmp_path / "digits-rtx-30-int8", ran.stdout)


@pytest.mark.heavy
def test_a_limit_on_the_drop_needs_the_device(tmp_path, vitedge):
    limit = ("--max-drop", "0.1", "--output", tmp_path)
    ran = vitedge("export", "--target", "tensorrt", "--int8", *limit, code=2)
    assert "--max-drop cannot be checked" in ran.stderr
    assert not list(tmp_path.glob("digits*"))

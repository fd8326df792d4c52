"""What one target cannot do is its own row; the other targets' bundles and FP32's are written."""

from __future__ import annotations

import numpy as np
import pytest

import vitedge as ve
from tests.e2e.test_unusual_models import model
from tests.support.machine import ONNXRUNTIME
from vitedge.core.bundle import open_bundle
from vitedge.core.errors import InputError
from vitedge.runtimes.onnxruntime import ONNXRuntime

CONVOLUTIONS = """
    s = Conv(pixels, c_thin)
    r = Relu(s)
    p = GlobalAveragePool(r)
    y = Flatten(p)
"""
THIN = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
"""Three weights a channel: INT8 would not make them smaller."""


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.integers(100, 256, (8, 8, 8, 3), np.uint8))
    return tmp_path / "images.npz"


@pytest.fixture
def convolutions(tmp_path):
    """A model that ONNX Runtime has nothing to quantize in."""
    return model(tmp_path, CONVOLUTIONS, classes=4, c_thin=THIN)


@pytest.fixture
def export(vitedge, tmp_path, convolutions, images, openvino):
    """Export it in INT8 to both runtimes, and what is then in the output's folder."""
    targets = ("--target", ONNXRUNTIME, "--target", openvino)
    flags = ("--int8", "--calibration", "fast", "--num-samples", 8, "--calib-data", images)

    def run(*others, code):
        command = ("export", convolutions, *targets, *flags, "--duration", 0, *others)
        ran = vitedge(*command, "--output", tmp_path / "out", code=code)
        return ran, {path.name for path in (tmp_path / "out").iterdir()}

    return run


WHY = "nothing to quantize: its operators with weights are Conv, which this target runs in float"


def names(openvino):
    return {f"model-{ONNXRUNTIME}-fp32", f"model-{openvino}-fp32", f"model-{openvino}-int8"}


def test_the_others_are_written_and_the_failure_is_a_row(export, tmp_path, openvino):
    ran, written = export(code=2)
    assert written == names(openvino)
    for name in written:
        open_bundle(tmp_path / "out" / name)
    rows = {
        line.split()[0]: line
        for line in ran.stdout.splitlines()
        if line.strip().startswith("model-")
    }
    assert written < set(rows)
    assert WHY[:19] in rows[f"model-{ONNXRUNTIME}-int8"]
    assert f"next: vitedge bench {tmp_path}/out/model-{openvino}-int8" in ran.stdout
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: model-{ONNXRUNTIME}-int8: {WHY}"] and "\n  fix: " in ran.stderr


def test_keep_going_succeeds_and_json_tells_both(export, openvino):
    ran, written = export("--keep-going", "--json", code=0)
    assert written == names(openvino)
    assert {artifact["report"]["artifact"] for artifact in ran.document["artifacts"]} == written
    (failure,) = ran.document["failures"]
    assert failure["artifact"] == f"model-{ONNXRUNTIME}-int8" and failure["precision"] == "int8"
    assert failure["target"] == ONNXRUNTIME and failure["exit_code"] == 2
    assert WHY in failure["what"] and "--fp32" in failure["fix"]


def test_a_runtime_that_fails_costs_its_own_bundles(monkeypatch, export, openvino):
    """The first target's runtime raises what no one expects of it, in a run."""

    def broken(*_):
        raise RuntimeError(
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while "
            "running Conv node. Name:'Conv_h' Status Message: no more patience"
        )

    monkeypatch.setattr("vitedge.runtimes.onnxruntime._ONNXRuntimeSession.run", broken)
    ran, written = export(code=2)
    assert written == {f"model-{openvino}-fp32", f"model-{openvino}-int8"}
    assert f"ONNX Runtime cannot run model-{ONNXRUNTIME}-fp32: at 'Conv_h' (Conv)" in ran.stderr
    assert "no more patience" in ran.stderr and "Traceback" not in ran.stderr


def test_nothing_is_written_where_no_target_can(vitedge, tmp_path, convolutions, monkeypatch):
    def unforeseen(*_):
        raise KeyError("unforeseen")

    monkeypatch.setattr(ONNXRuntime, "lower", unforeseen)
    command = ("export", convolutions, "--target", ONNXRUNTIME, "--keep-going")
    ran = vitedge(*command, "--output", tmp_path / "out", code=2)
    assert "KeyError" in ran.stderr or "unforeseen" in ran.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_images_that_no_target_can_use_stop_everything(export, images):
    np.savez(images, images=np.full((8, 8, 8, 3), 7, np.uint8))
    ran, written = export("--keep-going", code=2)
    assert written == set() and ran.stdout == "" and "blank" in ran.stderr


def test_from_python_the_first_failure_is_raised_with_what_was_written(
    tmp_path, convolutions, openvino
):
    rng = np.random.default_rng(0)
    settings = {
        "targets": [ONNXRUNTIME, openvino],
        "precision": "int8",
        "calib_data": rng.integers(0, 256, (8, 8, 8, 3), np.uint8),
        "duration_s": 0,
        "output": tmp_path / "out",
        "progress": ve.SILENT,
    }
    with pytest.raises(InputError, match="nothing to quantize") as caught:
        ve.export(str(convolutions), **settings)
    assert [x.bundle.manifest.target.name for x in caught.value.exports] == [
        *(ONNXRUNTIME, openvino, openvino),
    ]
    exports = ve.export(str(convolutions), **settings, force=True, keep_going=True)
    assert [x.bundle.manifest.precision for x in exports] == ["fp32", "fp32", "int8"]
    (failure,) = exports.failures
    assert (failure.target, failure.precision) == (ONNXRUNTIME, "int8")
    assert failure.error.fix == caught.value.fix

"""`vitedge export --fp16` as a user types it: half the size, the same answers, never infinite."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support.outliers import write_scaled
from vitedge.core.bundle import open_bundle
from vitedge.graph.run import Runner
from vitedge.measure.accuracy.validation import predict_all
from vitedge.runtimes import open_session

ORDINARY = 27.3
"""max|x| of the residual stream of `digits`."""


UNTIMED = ("--duration", 0)


def report(bundle):
    return json.loads((bundle.path / "report.json").read_text())


@pytest.fixture(scope="module")
def half(tmp_path_factory, vitedge, openvino):
    """`digits` in FP16 for OpenVINO, its FP32 bundle beside it."""
    output = tmp_path_factory.mktemp("half")
    vitedge("export", *UNTIMED, "--fp16", "--target", openvino, "--output", output)
    return open_bundle(output / f"digits-{openvino}-fp16")


def test_fp16_is_half_the_size_as_accurate_and_says_what_stays_in_float32(half):
    measured = report(half)
    assert measured["precision"] == "fp16"
    assert measured["accuracy"]["n"] == 719
    assert abs(measured["accuracy"]["drop_pp"]) < 0.3
    assert measured["numerics"]["sqnr_db"] > 60
    reference = half.reference()
    assert reference.manifest.precision == "fp32"
    weights = [(b.path / "model.bin").stat().st_size for b in (half, reference)]
    assert weights[0] < 0.51 * weights[1]
    assert measured["size"]["bytes"] < 0.6 * measured["size"]["fp32_bytes"]

    manifest = half.manifest
    assert manifest.precision == "fp16" and manifest.quantization is None
    assert manifest.half.layer_norm == "9 fused, adding up in float32 (stash_type 1)"
    assert manifest.half.kept == ()
    assert 20 < manifest.half.largest < 30
    assert manifest.half.largest_node == "blocks.3/Add_1"
    assert (manifest.half.source, manifest.half.images) == ("digits", 300)
    assert (manifest.inputs[0].dtype, manifest.outputs[0].dtype) == ("uint8", "float32")


def test_fp16_can_be_validated_and_timed(half, vitedge):
    validated = vitedge("validate", half.path, "--json").document
    assert validated["accuracy"] == report(half)["accuracy"]
    timed = vitedge("bench", half.path, "--duration", 0.2, "--json").document
    assert timed["latency"]["speedup"] > 0


@pytest.mark.heavy
def test_fp16_for_onnx_runtime_is_built_where_it_does_not_run(tmp_path, vitedge):
    ran = vitedge(
        *("export", "--fp16", "--target", "onnxruntime-arm", "--batch", "dynamic"),
        *("--num-samples", 10, "--output", tmp_path),
    )
    assert "not run" in ran.stderr
    bundle = open_bundle(tmp_path / "digits-onnxruntime-arm-fp16")
    assert bundle.manifest.half.images == 10
    graph = onnx.load(bundle.path / "model.onnx").graph
    floats = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    assert floats == {"image.scale", "image.shift"}
    golden = bundle.golden()
    (outputs,) = Runner(bundle.path / "model.onnx")(golden.images[:4])
    assert outputs.dtype == np.float32
    assert np.abs(outputs - golden.outputs[:4]).max() < 0.01 * np.abs(golden.outputs).max()


def test_without_calibration_images_the_guard_says_what_it_looked_at(tmp_path, vitedge, onnx_model):
    ran = vitedge(
        *("export", onnx_model, *UNTIMED, "--fp16", "--target", "openvino-cpu"),
        *("--output", tmp_path),
    )
    assert "pass --calib-data" in ran.stderr
    bundle = open_bundle(tmp_path / "model-openvino-cpu-fp16")
    assert (bundle.manifest.half.source, bundle.manifest.half.images) == ("golden", 8)


@pytest.mark.heavy
def test_a_residual_stream_beyond_float16_is_finite_in_fp16(tmp_path, vitedge, held_out):
    weights = write_scaled(tmp_path / "scaled.safetensors", 1e5 / ORDINARY)
    ran = vitedge(
        *("export", *UNTIMED, "--weights", weights, "--fp16", "--target", "openvino-cpu"),
        *("--output", tmp_path),
    )
    assert "stay in float32" in ran.stderr
    bundle = open_bundle(tmp_path / "digits-openvino-cpu-fp16")
    half = bundle.manifest.half
    assert half.largest > 65504
    assert {"blocks.3/Add_1", "norm/LayerNormalization"} <= {kept.node for kept in half.kept}
    assert "kept in float32" in half.layer_norm
    assert half.sqnr_db > 50
    measured = report(bundle)
    assert measured["accuracy"]["fp32"] > 0.99
    assert abs(measured["accuracy"]["drop_pp"]) < 0.3
    with open_session(bundle) as session:
        assert np.isfinite(predict_all(session, held_out.images[:64])).all()


@pytest.mark.heavy
def test_a_massive_residual_stream_costs_int8_nothing(tmp_path, vitedge):
    weights = write_scaled(tmp_path / "scaled.safetensors", 1e4 / ORDINARY)
    document = vitedge(
        *("export", *UNTIMED, "--weights", weights, "--int8", "--output", tmp_path, "--json"),
        *("--target", "onnxruntime", "--target", "openvino"),
    ).document
    reports = [made["report"] for made in document["artifacts"]]
    drops = [r["accuracy"]["drop_pp"] for r in reports if r["precision"] == "int8"]
    assert len(drops) == 2 and max(drops) <= 0.3
    assert min(r["accuracy"]["fp32"] for r in reports) > 0.99

"""`vitedge inspect` as a user types it: artifacts, anybody's ONNX files, and what is neither."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from tests.support.machine import ONNXRUNTIME
from tests.support.qdq import QDQ, fused_qkv
from vitedge.core import catalog

ACTIVATIONS = catalog.targets()[ONNXRUNTIME].quantization.activations
RUNTIMES = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
HEAVY = ("torch", "onnx", "onnxruntime", "openvino")


@RUNTIMES
def test_an_artifact_says_what_each_layer_loses(vitedge, bundles, runtime):
    found = vitedge("inspect", bundles[runtime, "int8"], "--json").document
    layers = found["layers"]
    assert [layer["depth"] for layer in layers] == list(range(1, len(layers) + 1))
    assert [layer["node"] for layer in layers][:2] == [
        "patch_embed.proj/Conv",
        "blocks.0.attn.qkv/MatMul",
    ]
    for layer in layers:
        assert layer["why"] and layer["macs"] > 0
        measured = (layer["sqnr_db"], layer["clipped_share"])
        if layer["quantized"]:
            assert 20 < measured[0] < 60 and 0 <= measured[1] < 0.01
            assert layer["activation_scales"][0] > 0 and layer["weight_scales"][0] > 0
            assert layer["accumulated_sqnr_db"] < layer["sqnr_db"] + 10
        elif layer["stored"]:
            assert measured[0] > 30 and measured[1] is None and layer["weight_scales"]
        else:
            assert measured == (None, None) and layer["activation_scales"] == []
    summary = found["summary"]
    own = {x["node"]: x["token_sqnr_db"] or x["sqnr_db"] for x in layers if x["quantized"]}
    assert summary["worst"] == min(own, key=own.__getitem__)
    assert summary["quantized"] == len(own) >= 16
    assert 0.85 < summary["quantized_macs_share"] < 1
    assert summary["accumulated_sqnr_db"] > 35
    assert found["lint"] == [] and found["notes"] == []


def test_the_worst_layers_are_at_the_top(vitedge, bundles):
    artifact = bundles["onnxruntime", "int8"]
    summary = vitedge("inspect", artifact, "--json").document["summary"]
    lines = vitedge("inspect", artifact).stdout.splitlines()
    assert summary["worst"] in lines[1]
    assert "16 of 26 operators in INT8" in lines[-3] and "20 of 26 layers" in lines[-2]
    assert lines[-1] == f"lint for {ONNXRUNTIME}: nothing found"


def test_an_fp32_artifact_has_nothing_quantized_and_says_what_to_do(vitedge, bundles):
    found = vitedge("inspect", bundles["onnxruntime", "fp32"], "--json").document
    assert found["layers"] == [] and "--target" in found["notes"][0]


def test_an_artifact_is_checked_against_another_target(vitedge, bundles):
    artifact = bundles["onnxruntime", "int8"]
    found = vitedge("inspect", artifact, "--target", "openvino-vnni", "--json").document
    assert (found["target"], found["lint"]) == ("openvino-vnni", [])


# -- ONNX files ---------------------------------------------------------------------------------


def test_a_float_model_shows_what_a_target_would_do(vitedge, onnx_model):
    alone = vitedge("inspect", onnx_model, "--json").document
    assert alone["lint"] is None and alone["summary"]["quantized"] == 0
    assert {layer["role"] for layer in alone["layers"]} == {"conv", "linear", "qk", "pv"}
    planned = {
        target: vitedge("inspect", onnx_model, "--target", target, "--json").document
        for target in ("onnxruntime-cpu", "openvino-cpu")
    }
    assert [planned[t]["summary"]["quantized"] for t in planned] == [16, 18]
    why = {x["node"]: x["why"] for x in planned["onnxruntime-cpu"]["layers"]}
    assert "no INT8 Conv" in why["patch_embed.proj/Conv"]


def test_a_quantized_model_shows_its_scales(vitedge, bundles):
    model = bundles["onnxruntime", "int8"] / "model.onnx"
    ours = vitedge("inspect", model.parent, "--json").document["layers"]
    found = vitedge("inspect", model, "--json").document
    for key in ("node", "quantized", "activation_scales", "weight_scales"):
        assert [layer[key] for layer in found["layers"]] == [layer[key] for layer in ours]
    kinds = {(q["kind"], q["dtype"], q["axis"]) for q in found["quantizers"]}
    assert kinds == {("activation", ACTIVATIONS, None), ("weight", "int8", 1)}


def save(path, body, name="", **weights):
    """x (1, 4, 8) -> y (1, 4, 8), a file without names, but of the last node."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        f"g (float[1, 4, 8] x) => (float[1, 4, 8] y) {{ {body} }}"
    )
    model.graph.node[-1].name = name
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model.graph.initializer.extend(stored)
    onnx.save(model, path)
    return path


def test_a_graph_without_products_is_no_error(vitedge, tmp_path):
    model = save(tmp_path / "relu.onnx", "y = Relu(x)")
    found = vitedge("inspect", model, "--target", "openvino-cpu", "--json").document
    assert found["layers"] == [] and "nothing to quantize" in found["notes"][0]


def test_shared_weights_and_dead_branches_are_listed_as_they_are(vitedge, tmp_path):
    body = "h = MatMul(x, w) y = MatMul(h, w) nobody = MatMul(h, w)"
    model = save(tmp_path / "m.onnx", body, w=np.ones((8, 8), np.float32))
    found = vitedge("inspect", model, "--target", "onnxruntime-cpu", "--json").document
    assert [layer["node"] for layer in found["layers"]] == ["h", "y", "nobody"]
    assert found["summary"]["quantized"] == 3


def test_the_lint_is_shown_with_its_way_out(vitedge, tmp_path):
    body = "dq = DequantizeLinear <axis = 1> (w, s) y = MatMul(x, dq)"
    weights = {"w": np.ones((8, 8), np.int8), "s": np.ones(8, np.float32)}
    model, page = save(tmp_path / "m.onnx", body, "<script>", **weights), tmp_path / "page.html"
    arguments = ("inspect", model, "--target", "onnxruntime-cpu", "--html", page)
    text = vitedge(*arguments).stdout
    assert "one-operand" in text and "quantize both operands, or neither" in text
    html = page.read_text(encoding="utf-8")
    assert "one-operand" in html and "<script" not in html


# -- bad input ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, bundles):
    """What a user might give by mistake."""
    made = {name: tmp_path / name for name in ("altered", "empty", "note.txt", "junk.onnx")}
    shutil.copytree(bundles["onnxruntime", "int8"], made["altered"])
    with (made["altered"] / "model.onnx").open("ab") as file:
        file.write(b"!")
    made["empty"].mkdir()
    made["note.txt"].write_text("hello")
    made["junk.onnx"].write_bytes(b"\xff" * 64)
    broken = np.full((8, 8), np.nan, np.float32)
    made["nan.onnx"] = save(tmp_path / "nan.onnx", "y = MatMul(x, w)", w=broken)
    made["openvino"] = bundles["openvino", "int8"]
    made["sound"] = bundles["onnxruntime", "int8"]
    made["quantized.onnx"] = made["sound"] / "model.onnx"
    return made


@pytest.mark.parametrize(
    ("which", "arguments", "says"),
    [
        ("altered", [], "SHA-256"),
        ("empty", [], "manifest.json"),
        ("missing", [], "no artifact at"),
        ("missing.onnx", [], "no ONNX file at"),
        ("empty", ["--as", "trtexec"], "needs an artifact"),
        ("quantized.onnx", ["--task", "features"], "--task does not apply"),
        ("quantized.onnx", ["--height", "32"], "--height does not apply"),
        ("note.txt", [], "neither an artifact"),
        ("junk.onnx", [], "ONNX"),
        ("nan.onnx", [], "NaN"),
        ("sound", ["--target", "openvino-cpuu"], "did you mean 'openvino-cpu'"),
        ("openvino", ["--target", "onnxruntime-cpu"], "no ONNX graph"),
        ("missing", ["--html", "nowhere/page.html"], "nowhere/page.html"),  # before any work
        ("sound", ["--html", "page.onnx"], ".html"),
    ],
)
def test_what_cannot_be_inspected_gets_one_clear_line(
    vitedge, files, tmp_path, which, arguments, says
):
    path = files.get(which, tmp_path / which)
    ran = vitedge("inspect", path, *arguments, code=2, cwd=tmp_path)
    assert ran.stdout == "" and ran.stderr.startswith("error: ") and "\n  fix: " in ran.stderr
    assert says in ran.stderr


# -- TensorRT -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tensorrt", "jetson-orin", "rtx-30"])
def test_a_float16_graph_with_external_data_is_linted_for_tensorrt(vitedge, tmp_path, target):
    model = fused_qkv(QDQ(), "Slice").model(batch="batch")
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=64)
    found = vitedge("inspect", path, "--target", target, "--json").document
    assert [(f["rule"], f["node"], f["consequence"]) for f in found["lint"]] == [
        ("fused-qkv", "qkv.m/MatMul", "INT8 lost")
    ]
    assert [layer["quantized"] for layer in found["layers"]] == [True] * 4
    scales = {q["tensor"]: q["scales"] for q in found["quantizers"]}
    assert scales["x"] == [float(np.float16(0.05))] * 2
    text = vitedge("inspect", path, "--target", target).stdout
    assert "INT8 lost" in text and f"lint for {target}: 1 found (fused-qkv)" in text


def test_a_target_hears_of_no_other_runtimes_traps(vitedge, bundles):
    model = bundles["onnxruntime", "int8"] / "model.onnx"
    assert vitedge("inspect", model, "--target", ONNXRUNTIME, "--json").document["lint"] == []
    found = vitedge("inspect", model, "--target", "tensorrt", "--json").document["lint"]
    zero_point = {("zero-point", "rejected")} if ACTIVATIONS == "uint8" else set()
    said = {(f["rule"], f["consequence"]) for f in found}
    assert said == {("fused-qkv", "INT8 lost"), *zero_point}

"""NNCF in the place of our quantizer: its QDQ graph in our bundle, or why it cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.machine import ONNXRUNTIME
from tests.support.outliers import write_digits
from vitedge.core.bundle import open_bundle

RECIPE = (Path(__file__).parents[2] / "calibration" / "nncf.toml").read_text()
EXPORT = ("export", "--int8", "--only", "--duration", 0, "--calibration")
NOISE = ("INFO", "WARNING", "Statistics", "━")
"""What NNCF says, its bars and its logs, where nobody stops it."""


RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.heavy)]


@pytest.fixture(scope="module")
def by_nncf(vitedge, once):
    """`digits` quantized by NNCF for a CPU runtime, and what was said on the way."""
    pytest.importorskip("nncf")

    def exported(target):
        def export(folder):
            flags = ("--num-samples", 32, "--target", target, "--output", folder / "out")
            ran = vitedge(*EXPORT, "nncf", *flags)
            (folder / "said.txt").write_text(ran.stdout + ran.stderr)

        return once(f"nncf-{target}", export)

    return exported


def bundle_of(by_nncf, runtime, openvino):
    name = openvino if runtime == "openvino" else ONNXRUNTIME
    return open_bundle(by_nncf(name) / "out" / f"digits-{name}-int8")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_its_graph_is_an_artifact_like_ours(vitedge, by_nncf, runtime, openvino):
    bundle = bundle_of(by_nncf, runtime, openvino)
    report = vitedge("validate", bundle.path, "--json").document
    assert abs(report["accuracy"]["drop_pp"]) < 1
    assert report["accuracy"]["agreement"] > 0.98
    assert report["numerics"]["sqnr_db"] > 25
    gate = vitedge("gate", bundle.path, "--max-drop", 2, "--json").document
    assert gate["answer"] == "passed"
    seen = vitedge("inspect", bundle.path, "--json").document
    assert "equalized" not in seen["about"]
    assert seen["about"]["calibration"].startswith("nncf, 32 images")
    assert "nncf" in seen["about"]["tools"]


def test_its_bars_and_logs_are_not_shown(by_nncf):
    said = (by_nncf(ONNXRUNTIME) / "said.txt").read_text()
    assert not [word for word in NOISE if word in said]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_layer_says_what_nncf_decided_as_its_graph_shows(by_nncf, runtime, openvino):
    bundle = bundle_of(by_nncf, runtime, openvino)
    record = bundle.manifest.quantization
    assert record.scheme.startswith("QDQ of NNCF ")
    assert record.settled is None and record.equalization is None
    assert record.calibration.recipe.engine == "nncf" and record.calibration.images == 32
    layers = {layer.node: layer for layer in record.layers}
    assert layers["blocks.0.mlp.fc1/MatMul"].why == "NNCF quantized what it reads"
    qk, pv = layers["blocks.0.attn/MatMul"], layers["blocks.0.attn/MatMul_1"]
    assert (qk.quantized, pv.quantized) == (True, False)
    assert pv.why == "NNCF left it in float"
    for layer in record.layers:  # a scale each: NNCF smooths before Q/DQ, and so do its figures
        assert layer.figures.sqnr_db is None if not layer.quantized else layer.figures.sqnr_db > 25
    if runtime == "onnxruntime":
        graph = onnx.load(bundle.path / "model.onnx").graph
        makers = {name: node.op_type for node in graph.node for name in node.output}
        fc1 = next(node for node in graph.node if node.name == "blocks.0.mlp.fc1/MatMul")
        assert [makers[name] for name in fc1.input] == ["DequantizeLinear"] * 2


def test_activations_are_stored_as_the_targets_kernels_take_them(by_nncf, openvino):
    graph = onnx.load(bundle_of(by_nncf, "onnxruntime", openvino).path / "model.onnx").graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    quantize = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantize
    assert {stored[node.input[2]].data_type for node in quantize} == {onnx.TensorProto.UINT8}
    weights = [tensor for tensor in graph.initializer if tensor.name.startswith("q_output_")]
    limits = [int(np.abs(onnx.numpy_helper.to_array(tensor)).max()) for tensor in weights]
    assert max(limits) <= 64  # pair-safe: NNCF's overflow fix


def test_both_engines_lie_side_by_side(vitedge, by_nncf, bundles, openvino):
    ours, theirs = bundles["onnxruntime", "int8"], bundle_of(by_nncf, "onnxruntime", openvino).path
    assert ours.name == theirs.name
    compared = vitedge("compare", ours, theirs).stdout
    assert "719 images" in compared and "SQNR" in compared


@pytest.mark.heavy
def test_its_accuracy_control_meets_a_bound(vitedge, tmp_path, held_out):
    pytest.importorskip("nncf")
    images = tmp_path / "digits.npz"
    np.savez(images, images=held_out.images[:360], labels=held_out.labels[:360])
    weights = write_digits(tmp_path / "vit.safetensors", "all", 100, seed=0)
    output = tmp_path / "out"
    ran = vitedge(
        *(*EXPORT, "nncf", "--num-samples", 32, "--target", ONNXRUNTIME, "--output", output),
        *("--calib-data", "digits", "--eval-data", images, "--max-drop", 0.3),
        *(weights, "--arch", "digits"),
    )
    bundle = open_bundle(output / f"vit-{ONNXRUNTIME}-int8")
    report = json.loads((bundle.path / "report.json").read_text())
    assert report["accuracy"]["drop_pp"] <= 0.3
    kept = "kept in float by NNCF's accuracy control, to lose 0.3 points at most"
    whys = [layer.why for layer in bundle.manifest.quantization.layers]
    assert 1 <= whys.count(kept) < len(whys)
    assert f"NNCF's accuracy control keeps {whys.count(kept)} of " in ran.stderr + ran.stdout


# -- what it cannot do --------------------------------------------------------------------------


def refused(vitedge, tmp_path, *arguments, code, says):
    output = tmp_path / "out"
    ran = vitedge(*arguments, "--output", output, code=code)
    assert not [text for text in says if text not in " ".join(ran.stderr.split())], ran.stderr
    assert not list(output.glob("*-int8"))


@pytest.mark.parametrize(
    ("target", "says"),
    [("tensorrt", "symmetric INT8"), ("openvino-npu", "INT8 beside floats in FP16")],
)
def test_a_dialect_that_nncf_does_not_write(vitedge, tmp_path, target, says):
    export = (*EXPORT, "nncf", "--target", target)
    refused(vitedge, tmp_path, *export, code=2, says=(f"target '{target}' takes {says}",))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("bias_correction = true", "weight_bits = 4"), "`weight_bits` 4 does not apply"),
        (("bias_correction = true", 'rounding = "adaptive"'), "`rounding` adaptive does not"),
        (("bias_correction = true", "rounding_budget_s = 9"), "`rounding_budget_s` 9 does not"),
        (('equalize = "nncf"', "equalize = 0.5"), "`equalize` 0.5 does not apply with `engine`"),
        (('weights = "nncf"', 'weights = "mse"'), 'write `weights = "nncf"`'),
        (('engine = "nncf"', ""), '`activations` nncf is no way of ours; write `engine = "nncf"`'),
        (('engine = "nncf"', 'engine = "ncnn"'), "Invalid enum value 'ncnn' - at `$.engine`"),
    ],
)
def test_a_field_of_a_recipe_that_does_not_apply(vitedge, tmp_path, change, says):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE.replace(*change))
    export = (*EXPORT, recipe, "--target", ONNXRUNTIME)
    refused(vitedge, tmp_path, *export, code=2, says=("mine.toml", says))


def test_training_goes_on_from_our_own_quantizer(vitedge, tmp_path):
    pytest.importorskip("nncf")
    qat = ("qat", "--target", ONNXRUNTIME, "--calibration", "nncf")
    refused(vitedge, tmp_path, *qat, code=2, says=("recipe 'nncf' has `engine` nncf",))


def test_a_bound_for_what_is_no_classifier(vitedge, tmp_path):
    pytest.importorskip("nncf")
    export = (*EXPORT, "nncf", "--target", ONNXRUNTIME, "--max-drop", 1, "shapes")
    says = ("--max-drop with NNCF is for classifiers", "shapes is for segmentation")
    refused(vitedge, tmp_path, *export, code=2, says=says)


def test_without_nncf(vitedge, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)  # Python's own word for "not there"
    export = (*EXPORT, "nncf", "--target", ONNXRUNTIME)
    says = ("package 'nncf', which is not installed", "pip install 'vitedge[nncf]'")
    refused(vitedge, tmp_path, *export, code=3, says=says)


STUB = """
import enum
ModelType = enum.Enum("ModelType", ["TRANSFORMER"])
OverflowFix = enum.Enum("OverflowFix", ["ENABLE"])
class Dataset:
    def __init__(self, source, transform=None): pass
class AdvancedQuantizationParameters:
    def __init__(self, {parameters}): pass
{rest}
"""


@pytest.mark.parametrize(
    ("parameters", "rest", "says"),
    [
        ("**options", "", "has no attribute 'quantize'"),
        *(
            pytest.param(*case, marks=pytest.mark.heavy)
            for case in (
                ("**options", "def quantize(model, data): ...", "unexpected keyword argument"),
                ("preset", "def quantize(model, data, **options): ...", "missing a required"),
                ("**options", "import torch.absent", "No module named 'torch.absent'"),
            )
        ),
    ],
)
def test_another_nncf_than_the_one_we_know(vitedge_process, tmp_path, parameters, rest, says):
    package = tmp_path / "stub" / "nncf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STUB.format(parameters=parameters, rest=rest))
    export = (*EXPORT, "nncf", "--num-samples", 2, "--target", ONNXRUNTIME)
    output = tmp_path / "out"
    environment = {"PYTHONPATH": str(package.parent)}
    ran = vitedge_process(*export, "--output", output, code=3, **environment)
    said = " ".join(ran.stderr.split())
    assert "is not one that this works with" in said and says in said
    assert "pip install 'vitedge[nncf]'" in said

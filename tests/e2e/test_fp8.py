"""`vitedge export --fp8` from a machine with no GPU: what is proven, and who is refused."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto

from vitedge.core.bundle import open_bundle
from vitedge.core.machine import describe_machine

pytest.importorskip("tensorrt_rtx")

pytestmark = pytest.mark.skipif(
    bool(describe_machine(threads=0).gpus), reason="this machine has a GPU"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, vitedge):
    """What an export of `digits` in FP8 for Ada said, and its folder."""
    output = tmp_path_factory.mktemp("fp8")
    common = ("--target", "rtx-40", "--num-samples", 64, "--output", output)
    return vitedge("export", "--fp8", *common), output


def test_it_comes_with_fp32_and_fp16_and_every_product_compiles_to_it(exported):
    ran, output = exported
    names = {path.name for path in output.iterdir() if path.is_dir()}
    assert names == {f"digits-rtx-40-{precision}" for precision in ("fp32", "fp16", "fp8")}
    assert "32 of 32 planned products in FP8, 4 of 4 attentions fused" in ran.stdout
    manifest = open_bundle(output / "digits-rtx-40-fp8").manifest
    assert manifest.precision == "fp8"
    assert manifest.quantization.scheme.startswith("symmetric FP8 (E4M3)")
    assert manifest.quantization.lint == () and manifest.half.kept == ()
    compiled = manifest.build.compiled
    assert (compiled.planned, compiled.fp8, compiled.int8, compiled.lost) == (32, 32, 0, {})
    assert (compiled.attention, compiled.fused) == (4, 4)


def test_its_accuracy_is_simulated_and_nothing_is_called_measured(exported):
    ran, output = exported
    report = json.loads((output / "digits-rtx-40-fp8" / "report.json").read_text())
    assert not {"accuracy", "numerics", "latency", "recommendation"} & set(report)
    simulated = report["simulation"]
    assert simulated["numerics"]["sqnr_db"] >= 30
    assert simulated["accuracy"]["drop_pp"] <= 0.3
    assert "digits-rtx-40-fp8: not run: " in ran.stderr


def test_the_graph_is_plain_onnx_with_e4m3_weights_and_half_scales(exported):
    model = onnx.load(exported[1] / "digits-rtx-40-fp8" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 19
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    quantizers = [n for n in model.graph.node if n.op_type.endswith("tizeLinear")]
    assert len(quantizers) > 60
    for node in quantizers:
        scale, zero = (stored[name] for name in node.input[1:])
        assert (scale.data_type, zero.data_type) == (
            TensorProto.FLOAT16,
            TensorProto.FLOAT8E4M3FN,
        )
    weights = [n for n in quantizers if n.input[0] in stored]
    assert {stored[n.input[0]].data_type for n in weights} == {TensorProto.FLOAT8E4M3FN}
    assert all(stored[n.input[1]].dims[0] > 1 for n in weights)  # a scale for each channel


def test_inspect_calls_it_by_its_name(exported, vitedge):
    shown = vitedge("inspect", exported[1] / "digits-rtx-40-fp8").stdout
    assert "32 of 34 operators in FP8" in shown and "INT8" not in shown


@pytest.mark.parametrize("target", ["rtx-30", "jetson-orin", "onnxruntime-cpu", "openvino-cpu"])
def test_a_target_without_it_is_refused_with_the_gpus_that_have_it(target, tmp_path, vitedge):
    ran = vitedge("export", "--fp8", "--target", target, "--output", tmp_path, code=2)
    assert "does not run fp8" in ran.stderr and "8.9 (Ada)" in ran.stderr
    assert "--target rtx-40" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_weights_of_four_bits_are_not_fp8s(tmp_path, vitedge):
    recipe = tmp_path / "four.toml"
    recipe.write_text(
        'name = "four"\ndescription = "4-bit weights"\nnum_samples = 8\n'
        'activations = "minmax"\nweights = "minmax"\nweight_bits = 4\n'
    )
    ran = vitedge("export", "--fp8", "--target", "rtx-40", "--calibration", recipe, code=2)
    assert "4-bit weights" in ran.stderr and "--int8" in ran.stderr


def test_int8_is_exported_without_it(vitedge):
    common = ("export", "--target", "rtx-40", "--dry-run", "--json")
    assert vitedge(*common, "--int8").document["targets"] == {"rtx-40": ["fp32", "fp16", "int8"]}
    assert vitedge(*common, "--fp8").document["targets"] == {"rtx-40": ["fp32", "fp16", "fp8"]}
    assert vitedge(*common, "--fp8", "--only").document["targets"] == {"rtx-40": ["fp32", "fp8"]}
    assert "exclude each other" in vitedge(*common, "--fp8", "--int8", code=2).stderr


@pytest.mark.heavy
def test_a_dynamic_batch_on_blackwell_keeps_all_of_it(tmp_path, vitedge):
    flags = ("--batch", "dynamic", "--only", "--num-samples", 64, "--output", tmp_path)
    ran = vitedge("export", "--target", "rtx-50", "--fp8", *flags)
    assert "32 of 32 planned products in FP8, 4 of 4 attentions fused" in ran.stdout

"""What the lint says of whole INT8 models, ours and ONNX Runtime's, and a compiler of them."""

from collections import Counter

import onnx
import onnx_ir as ir
import pytest

from tests.support.ptq import ptq
from tests.support.rtx import compiled
from vitedge.core import catalog
from vitedge.core.spec import Quantization
from vitedge.graph.external import write
from vitedge.graph.qkv_split import split
from vitedge.graph.run import shapes
from vitedge.runtimes.lint import lint

TENSORRT = catalog.targets()["tensorrt"]
DIALECT = Quantization(
    activations="int8", weights="full", attention=("qk", "pv"), operators=("MatMul",)
)
QKV = [f"blocks.{block}.attn.qkv/MatMul" for block in range(4)]
BATCHES = pytest.mark.parametrize("batch", [1, "dynamic"])


@BATCHES
def test_of_digits_only_the_fused_qkv_is_found_and_the_compiler_agrees(
    digits_graph, calibration_batches, batch
):
    exported = digits_graph(batch)
    recipe = catalog.calibrations()["fast"]
    model, decisions = ptq(exported.path, calibration_batches(8, 1), recipe, DIALECT)
    findings = lint(model, TENSORRT)
    assert [(f.rule, f.node, f.consequence) for f in findings] == [
        ("fused-qkv", name, "INT8 lost") for name in QKV
    ]
    engine = compiled(model)
    planned = [decision.node for decision in decisions if decision.quantized]
    assert len(planned) == 24 and not engine.errors
    assert [node for node in planned if not engine.int8(node)] == QKV


@BATCHES
def test_of_digits_with_q_k_and_v_apart_nothing_is_found_and_all_is_int8(
    digits_graph, calibration_batches, batch, tmp_path
):
    whole, path = digits_graph(batch).path, tmp_path / "split.onnx"
    size = 2 if batch == "dynamic" else batch
    apart = ir.load(whole)
    assert split(apart, shapes(whole, calibration_batches(size, size)[0])) == len(QKV)
    write(apart, path)
    recipe = catalog.calibrations()["fast"]
    model, decisions = ptq(path, calibration_batches(8, 1), recipe, DIALECT)
    assert lint(model, TENSORRT) == ()
    engine = compiled(model)
    planned = [decision.node for decision in decisions if decision.quantized]
    assert len(planned) == 32 and not engine.errors
    assert [node for node in planned if not engine.int8(node)] == []
    assert all(
        engine.fused(f"blocks.{block}.attn/MatMul", f"blocks.{block}.attn/MatMul_1")
        for block in range(4)
    )


# -- ONNX Runtime's own quantizer -----------------------------------------------------------------


@pytest.fixture
def quantize_static(digits_graph, calibration_batches, tmp_path):
    """`digits` as `onnxruntime.quantization.quantize_static` makes it."""
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter(calibration_batches(8, 1))

        def get_next(self):
            images = next(self.rest, None)
            return None if images is None else {"image": images}

    def make(**options):
        path = tmp_path / "quantized.onnx"
        quantize(digits_graph(1).path, path, Reader(), **options)
        return onnx.load(path)

    return make


def rules(model):
    return Counter(finding.rule for finding in lint(model, TENSORRT))


def test_what_onnxruntime_quantizes_by_default_is_rejected(quantize_static):
    model = quantize_static()
    assert set(rules(model)) == {
        *("zero-point", "int32-bias", "scalar-constant"),
        *("residual-quantized", "quantized-scores"),
    }
    assert "zero point" in compiled(model).errors[0]


def test_what_onnxruntime_quantizes_symmetrically_compiles_without_fused_attention(quantize_static):
    from onnxruntime.quantization import QuantType

    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    model = quantize_static(
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
        extra_options=symmetric,
    )
    assert rules(model) == {"residual-quantized": 4, "quantized-scores": 4}  # one a block
    engine = compiled(model)
    products = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    assert [name for name in products if not engine.int8(name)] == []
    assert not engine.fused("blocks.0.attn/MatMul", "blocks.0.attn/MatMul_1")

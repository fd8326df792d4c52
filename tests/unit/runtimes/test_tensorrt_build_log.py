"""The build log of real compilations: which kernels there are, and what became of INT8."""

import msgspec
import onnx
import pytest

from tests.support.ptq import ptq
from tests.support.small_graphs import ATTENTION, LINEAR, ONE_OPERAND, write
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt.build_log import layers
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.runtimes.tensorrt.coverage import compile_check, quantized_plan

pytest.importorskip("tensorrt_rtx")

RTX = catalog.targets()["rtx-40"]


def check(path, target="rtx-40"):
    return compile_check(path, catalog.targets()[target], SILENT)


def test_a_linear_is_one_gemm_of_int8_by_int8(tmp_path):
    model = write(LINEAR, tmp_path / "linear.onnx")
    compiled = layers(compile_model(model, RTX, SILENT).log)
    (gemm,) = (layer for layer in compiled if layer.kind == "gemm")
    assert gemm.inputs == ("Int8",)
    assert gemm.constants.count("Int8") == 1
    assert gemm.outputs == ("Half",)
    assert {"y", "dq", "dw"} <= set(gemm.nodes)
    assert gemm.multiplies
    before = next(layer for layer in compiled if "q" in layer.nodes)
    assert (before.kind, before.inputs, before.outputs) == ("kgen", ("Half",), ("Int8",))
    assert not before.multiplies


@pytest.mark.parametrize("batch", ["1", "4", "N"])
@pytest.mark.parametrize("target", ["rtx-30", "rtx-40", "rtx-50"])
def test_attention_of_split_linears_is_all_int8_and_one_kernel(tmp_path, batch, target):
    compiled = check(write(ATTENTION, tmp_path / "attention.onnx", batch), target)
    assert (compiled.planned, compiled.int8, compiled.lost) == (6, 6, {})
    assert (compiled.attention, compiled.fused) == (1, 1)
    assert compiled.compute_capability == catalog.targets()[target].compute_capabilities[0]
    assert compiled.compiler.startswith("TensorRT-RTX 1.")


def test_what_is_planned_is_read_from_the_graph(tmp_path):
    plan = quantized_plan(write(ATTENTION, tmp_path / "attention.onnx"))
    linears = ("query_linear", "key_linear", "value_linear")
    assert plan.products == dict.fromkeys((*linears, "scores", "context", "y"), "Int8")
    (attention,) = plan.attentions
    assert (attention.qk, attention.softmax, attention.pv) == ("scores", "probabilities", "context")
    nothing = quantized_plan(write(ONE_OPERAND, tmp_path / "one.onnx"))
    assert (nothing.products, nothing.attentions) == ({}, ())


@pytest.mark.parametrize(
    ("body", "planned", "lost"),
    [
        (LINEAR.replace("<axis = 1>", "<axis = 0>"), 1, {"y": "Int8 × Half × Int8, made floats"}),
        (ATTENTION.replace("context = MatMul(p, v)", "context = MatMul(p, value_headed)"), 5, {}),
    ],
    ids=["scales along the wrong axis", "an attention of which only the scores are planned"],
)
def test_what_is_lost_is_counted_and_says_why(tmp_path, body, planned, lost):
    compiled = check(write(body, tmp_path / "graph.onnx"))
    assert (compiled.planned, compiled.int8) == (planned, planned - len(lost))
    assert compiled.lost.keys() == lost.keys()
    assert all(why in compiled.lost[name] for name, why in lost.items())


def test_in_float_nothing_is_planned_and_nothing_lost(digits_graph):
    compiled = check(digits_graph(1).path)
    assert (compiled.planned, compiled.int8, compiled.lost) == (0, 0, {})
    assert compiled.attention == 4


@pytest.fixture(scope="module")
def digits(tmp_path_factory, digits_graph, calibration_batches):
    """`digits` in INT8, batch 1, in the dialect of the RTX targets."""
    recipe = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=16)
    model, _ = ptq(digits_graph(1).path, calibration_batches(16, 1), recipe, RTX.quantization)
    path = tmp_path_factory.mktemp("digits") / "model.onnx"
    onnx.save(model, path)
    return path


def test_attention_of_digits_is_fused_in_int8(digits):
    compiled = check(digits)
    assert compiled.attention == compiled.fused == 4
    plan = quantized_plan(digits)
    assert compiled.planned == len(plan.products) >= 24
    products = {name for nodes in plan.attentions for name in (nodes.qk, nodes.pv)}
    assert products <= plan.products.keys()
    assert not products & set(compiled.lost)
    assert compiled.int8 == compiled.planned - len(compiled.lost) >= 20


@pytest.mark.parametrize(
    ("name", "capability"),
    [("tensorrt", "8.6"), ("jetson-orin", "8.6"), ("jetson-thor", "8.6"), ("rtx-50", "12.0")],
)
def test_a_gpu_that_the_compiler_does_not_know_is_stood_in_for(tmp_path, name, capability):
    target = catalog.targets()[name]
    options = msgspec.structs.replace(  # which only the device has
        target.compile, weights="stripped", version_compatible=True, hardware_compatible=True
    )
    model = write(LINEAR, tmp_path / "linear.onnx")
    for asked in (target, msgspec.structs.replace(target, compile=options)):
        compiled = compile_check(model, asked, SILENT)
        assert (compiled.compute_capability, compiled.int8) == (capability, 1)

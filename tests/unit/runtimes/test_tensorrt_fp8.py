"""FP8 in TensorRT-RTX's compiler: the least graph that it fuses, and what it makes of others."""

import pytest

from tests.support.small_graphs import ATTENTION, LINEAR, fp8_constants, write
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.fp8 import fp8_target
from vitedge.core.machine import describe_machine
from vitedge.core.progress import SILENT
from vitedge.runtimes.tensorrt.build_log import layers
from vitedge.runtimes.tensorrt.compiler import compile_model
from vitedge.runtimes.tensorrt.coverage import compile_check, quantized_plan

pytest.importorskip("tensorrt_rtx")

PROBABILITIES = """
    p_q = QuantizeLinear(probabilities, scale, zero)
    p = DequantizeLinear(p_q, scale, zero)
"""
SCORES = """
    scores_q = QuantizeLinear(scores, scale, zero)
    scores_dq = DequantizeLinear(scores_q, scale, zero)
    probabilities = Softmax(scores_dq)
"""


def target(name):
    return fp8_target(catalog.targets()[name], describe_machine(threads=0))


def graph(body, folder, batch="1"):
    return write(body, folder / "fp8.onnx", batch, fp8_constants())


@pytest.mark.parametrize("batch", ["1", "4", "N"])
@pytest.mark.parametrize("name", ["rtx-40", "rtx-50"])
def test_with_every_operand_quantized_attention_is_one_kernel_of_fp8(tmp_path, batch, name):
    model = graph(ATTENTION, tmp_path, batch)
    assert set(quantized_plan(model).products.values()) == {"FP8"}
    compiled = compile_check(model, target(name), SILENT)
    assert (compiled.planned, compiled.fp8, compiled.int8, compiled.lost) == (6, 6, 0, {})
    assert (compiled.attention, compiled.fused) == (1, 1)
    assert compiled.compute_capability == target(name).compute_capabilities[0]


@pytest.mark.parametrize("name", ["rtx-40", "rtx-50"])
def test_that_kernel_reads_fp8_and_writes_it(tmp_path, name):
    log = compile_model(graph(ATTENTION, tmp_path), target(name), SILENT).log
    (fused,) = (x for x in layers(log) if {"scores", "context"} <= set(x.nodes) and x.multiplies)
    assert fused.inputs == ("FP8", "FP8", "FP8")
    assert fused.outputs == ("FP8",)  # for the projection after it


@pytest.mark.parametrize(
    ("body", "planned"),
    [
        (ATTENTION.replace(PROBABILITIES, "p = Identity(probabilities)"), 5),
        (ATTENTION.replace("probabilities = Softmax(scores)", SCORES), 6),
    ],
    ids=["the softmax's output in float", "its input quantized"],
)
@pytest.mark.parametrize("name", ["rtx-40", "rtx-50"])
def test_with_other_operands_quantized_it_is_not_fused(tmp_path, body, planned, name):
    assert body != ATTENTION
    compiled = compile_check(graph(body, tmp_path), target(name), SILENT)
    assert (compiled.planned, compiled.attention, compiled.fused) == (planned, 1, 0)


def test_scales_along_the_wrong_axis_lose_it(tmp_path):
    model = graph(LINEAR.replace("<axis = 1>", "<axis = 0>"), tmp_path)
    compiled = compile_check(model, target("rtx-40"), SILENT)
    assert (compiled.planned, compiled.fp8) == (1, 0)
    assert "made floats" in compiled.lost["y"]


def test_a_gpu_without_it_cannot_compile_it(tmp_path):
    with pytest.raises(InputError, match="TensorRT-RTX cannot compile"):
        compile_model(graph(LINEAR, tmp_path), catalog.targets()["rtx-30"], SILENT)


@pytest.mark.parametrize("name", ["tensorrt", "jetson-thor"])
def test_a_gpu_that_the_compiler_does_not_know_is_stood_in_for(tmp_path, name):
    compiled = compile_check(graph(LINEAR, tmp_path), target(name), SILENT)
    assert (compiled.compute_capability, compiled.fp8) == ("8.9", 1)

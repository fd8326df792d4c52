"""Each TensorRT rule finds its trap, and TensorRT-RTX's build log says what the trap costs."""

from functools import partial

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.qdq import QDQ, WIDTH, attention, fused_qkv, integers
from tests.support.rtx import compiled
from tests.support.traps import CONTEXT, SCORES, linear, lost, read, rejected
from tests.support.traps.costly import (
    COSTLY,
    conv,
    gemm,
    heads_of_80,
    qkv_by_split,
    quantized_scores,
    scaled,
    too_many_tokens,
    turned,
)
from tests.support.traps.refused import (
    REFUSED,
    shifted_activation,
    spelled_out_norm,
    two_linears,
    weight_of,
)
from vitedge.core import catalog
from vitedge.core.runtime import runtimes
from vitedge.runtimes.lint import lint

TENSORRT = catalog.targets()["tensorrt"]
RTX = catalog.targets()["rtx-30"]

TRAPS = [*REFUSED, *COSTLY]
each_trap = pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: f"{trap.rule} {trap.node}")


@each_trap
def test_a_trap_is_found_named_and_comes_with_a_way_out(trap):
    (finding,) = lint(trap.make(), TENSORRT)
    assert (finding.rule, finding.node) == (trap.rule, trap.node)
    assert finding.what and finding.fix


@each_trap
def test_the_compiler_says_the_same(trap):
    (finding,) = lint(trap.make(), TENSORRT)
    node = "y.m/MatMul" if trap.node.endswith("QuantizeLinear") else trap.node
    assert trap.proof(compiled(trap.make()), node)
    if finding.consequence == "INT8 lost":
        assert trap.proof is lost
    elif finding.consequence == "rejected":
        assert trap.proof is rejected or trap.rule == "opset-range"


def test_every_rule_has_a_trap():
    assert {trap.rule for trap in TRAPS} == {rule.id for rule in runtimes()["tensorrt"].rules()}


# -- what is sound ------------------------------------------------------------------------------


def sliced_tokens():
    graph = QDQ()
    graph.linear("x", "h")
    graph.add("Gather", ["h", graph.constant("class", np.array(0))], "y", axis=1)
    return graph.model()


def float_weight():
    graph = QDQ()
    weight = graph.float_weight("w", integers(WIDTH, WIDTH))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def contrib_quantizers():
    graph = read(np.float32)
    for node in graph.nodes[:2]:
        node.domain = "com.microsoft"
    return graph.model()


def int4_weight():
    graph = QDQ()
    values = np.clip(integers(WIDTH, WIDTH), -7, 7)
    graph.tensors.append(helper.make_tensor("w", TensorProto.INT4, values.shape, values.flatten()))
    scales = graph.constant("w.s", np.full(WIDTH, 0.1))
    graph.add("DequantizeLinear", ["w", scales], "w.dq", axis=1)
    graph.add("MatMul", [graph.activation("x"), "w.dq"], "y")
    return graph.model(opset=21)


SOUND = [
    (partial(linear().model), ("y.m/MatMul",)),
    (partial(linear(np.float32).model, opset=17), ("y.m/MatMul",)),
    (partial(linear().model, batch="batch"), ("y.m/MatMul",)),
    (partial(turned, axis=0), ("y/MatMul",)),
    (partial(gemm, axis=0, trans_b=1), ("y/Gemm",)),
    (partial(gemm, axis=1, trans_b=0), ("y/Gemm",)),
    (partial(conv, axis=0), ("y/Conv",)),
    (partial(scaled, "Abs", "stored"), ("y.m/MatMul",)),
    (partial(weight_of, 1, 1, axis=1), ("y/MatMul",)),
    (float_weight, ("y/MatMul",)),
    (contrib_quantizers, ("y.m/MatMul",)),
    (partial(two_linears, h_m="same", y_m="same"), ("same",)),
    (sliced_tokens, ("h.m/MatMul",)),
    (partial(attention(QDQ()).model), (SCORES, CONTEXT)),
    (partial(attention(QDQ()).model, batch="batch"), (SCORES, CONTEXT)),
    (partial(attention(QDQ()).model, tokens=512), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), scale="after").model), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), quantize_context=True).model), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), mask=True).model, batch="batch"), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), quantized="").model), ("q0.m/MatMul", "k0.m/MatMul")),
    (partial(attention(QDQ(), quantized="", head=80).model), ("q0.m/MatMul",)),
    (partial(fused_qkv(QDQ(), "Split", quantize_before=True).model), ("qkv.m/MatMul", SCORES)),
    (partial(fused_qkv(QDQ(), "Split", weight="per tensor").model), ("qkv.m/MatMul", SCORES)),
    (partial(fused_qkv(QDQ(), "Gather", weight="float").model), ("qkv.m/MatMul", SCORES)),
    (
        partial(fused_qkv(QDQ(), "Slice", weight="float").model, batch="batch"),
        ("qkv.m/MatMul", SCORES),
    ),
]


@pytest.mark.parametrize(("make", "products"), SOUND)
def test_what_is_sound_is_not_mentioned_and_compiles_to_int8(make, products):
    assert lint(make(), TENSORRT) == ()
    got = compiled(make())
    assert [node for node in products if not got.int8(node)] == [], got
    if CONTEXT in products:
        assert got.fused(SCORES, CONTEXT)


def test_a_norm_of_float32_operators_is_no_trap_and_neither_are_int4_weights():
    assert lint(spelled_out_norm(np.float32), TENSORRT) == ()
    assert lint(int4_weight(), RTX) == () and compiled(int4_weight()).int8("y/MatMul")


@pytest.mark.parametrize("opset", [13, 17, 21, 24])
def test_tensorrt_rtx_takes_opsets_of_which_tensorrt_10_3_documents_nothing(opset):
    model = linear(np.float32).model(opset=opset)
    assert lint(model, RTX) == () and compiled(model).int8("y.m/MatMul")
    assert [f.rule for f in lint(model, TENSORRT)] == ["opset-range"] * (opset > 20)


def test_head_sizes_and_tokens_are_the_targets_own():
    wider = msgspec.structs.replace(
        TENSORRT.quantization, attention_head_sizes=(80,), attention_max_tokens=0
    )
    target = msgspec.structs.replace(TENSORRT, quantization=wider)
    assert lint(heads_of_80(), target) == ()
    assert [f.rule for f in lint(too_many_tokens(), target)] == ["attention-size"]


def test_no_rule_of_a_cpu_runtime_speaks_of_tensorrt():
    own = {rule.id for rule in runtimes()["tensorrt"].rules()}
    assert not own & {"bias-rank-1", "saturation", "no-int8-kernel", "decomposed-gelu"}
    assert runtimes()["tensorrt"].rules() is runtimes()["tensorrt_rtx"].rules()
    for make in (shifted_activation, heads_of_80, quantized_scores, qkv_by_split):
        rules = {finding.rule for finding in lint(make(), catalog.targets()["openvino-cpu"])}
        assert not rules & (own - {"opset-range", "bad-scale"})


def test_a_hostile_graph_is_read_in_no_time():
    """2³⁰⁰ paths lead into the softmax, and a chain deeper than Python's stack away from it."""
    graph = QDQ()
    name = graph.linear("x", "h")
    for i in range(300):
        name = graph.add("Add", [name, name], f"a{i}")
    graph.add("Softmax", [name], "p")
    name = graph.add("Identity", ["p"], "i0")
    for i in range(2000):
        name = graph.add("Identity", [name], f"i{i + 1}")
    graph.add("Identity", [name], "y")
    assert lint(graph.model(), TENSORRT) == ()

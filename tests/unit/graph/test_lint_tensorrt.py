"""Each TensorRT rule finds its trap, and TensorRT-RTX's build log says what the trap costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from tests.qdq import QDQ, TOKENS, WIDTH, attention, fused_qkv, integers
from tests.rtx import Compiled, compiled
from vitedge import catalog
from vitedge.graph.lint import RULES, lint

TENSORRT = catalog.targets()["tensorrt"]
RTX = catalog.targets()["rtx-30"]
SCORES, CONTEXT = "scores/MatMul", "context/MatMul"
Proof = Callable[[Compiled, str], bool]


def linear(floats: type = np.float16, **weight: Any) -> QDQ:
    graph = QDQ(floats)
    graph.linear("x", "y", **weight)
    return graph


def read(floats: type = np.float16, **activation: Any) -> QDQ:
    """A Linear whose activation is quantized otherwise."""
    graph = QDQ(floats)
    graph.linear(graph.activation("x", **activation), "y")
    return graph


def new_opset() -> ModelProto:
    return linear().model(opset=21)


def half_scales_too_early() -> ModelProto:
    return linear().model(opset=18)


def shifted_activation() -> ModelProto:
    return read(zero=3).model()


def shifted_uint8_activation() -> ModelProto:
    return read(zero=128, kind=np.uint8).model()


def shifted_weight() -> ModelProto:
    return linear(zero=-2).model()


def uint8_weight() -> ModelProto:
    return linear(values=np.abs(integers(WIDTH, WIDTH)).astype(np.uint8)).model()


def int16_activation() -> ModelProto:
    return read(np.float32, kind=np.int16).model()


def int16_weight() -> ModelProto:
    return linear(values=integers(WIDTH, WIDTH).astype(np.int16)).model()


def int32_bias() -> ModelProto:
    graph = QDQ()
    graph.add("MatMul", [graph.activation("x"), graph.weight("w", integers(WIDTH, WIDTH))], "m")
    bias = graph.weight("b", np.ones(WIDTH, np.int32), axis=0)
    graph.add("Add", ["m", bias], "y")
    return graph.model()


def zero_scale() -> ModelProto:
    return linear(scale=[0.0] + [0.01] * (WIDTH - 1)).model()


def negative_scale() -> ModelProto:
    return read(scale=-0.1).model()


def infinite_scale() -> ModelProto:
    return linear(scale=np.inf).model()


def _weight_of(scales: int, zeros: int, axis: int) -> ModelProto:
    """(K, N) = (64, 96), per channel."""
    graph = QDQ()
    graph.constant("w.i", integers(WIDTH, 96))
    graph.constant("w.s", np.full(scales, 0.01))
    graph.constant("w.z", np.zeros(zeros, np.int8))
    graph.add("DequantizeLinear", ["w.i", "w.s", "w.z"], "w.dq", axis=axis)
    graph.add("MatMul", [graph.activation("x"), "w.dq"], "y")
    return graph.model()


def too_few_scales() -> ModelProto:
    return _weight_of(64, 64, axis=1)


def too_few_zero_points() -> ModelProto:
    return _weight_of(96, 1, axis=1)


def axis_that_is_not_there() -> ModelProto:
    return _weight_of(96, 96, axis=2)


def scalar_constant() -> ModelProto:
    graph = QDQ()
    graph.constant("c.i", np.int8(5))
    graph.constant("c.s", 0.01)
    graph.add("DequantizeLinear", ["c.i", "c.s"], "c.dq")
    graph.add("Mul", ["x", "c.dq"], "y")
    return graph.model()


def mixed_product() -> ModelProto:
    graph = QDQ()
    left = graph.activation("x")
    graph.floats = np.float32
    graph.add("MatMul", [left, graph.weight("w", integers(WIDTH, WIDTH))], "y")
    return graph.model()


def mixed_addition() -> ModelProto:
    graph = QDQ()
    graph.add("Add", ["x", graph.constant("b", np.ones(WIDTH, np.float32))], "y")
    return graph.model()


def mixed_norm() -> ModelProto:
    graph = QDQ()
    gamma = graph.constant("g", np.ones(WIDTH, np.float32))
    graph.add("LayerNormalization", ["x", gamma], "y")
    return graph.model()


def integer_product() -> ModelProto:
    graph = QDQ(np.float32)
    parts = [graph.constant("s", 0.05), graph.constant("z", np.int8(0))]
    graph.add("QuantizeLinear", ["x", *parts], "q")
    weight = graph.constant("w", integers(WIDTH, WIDTH))
    graph.add("QLinearMatMul", ["q", *parts, weight, *parts, *parts], "p")
    graph.add("DequantizeLinear", ["p", *parts], "y")
    return graph.model()


def dynamic_quantization() -> ModelProto:
    graph = QDQ(np.float32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "y/Dynamic")
    graph.nodes.append(node)
    graph.add("DequantizeLinear", ["q", "s", "z"], "y")
    return graph.model()


def contrib(op: str, *constants: str) -> ModelProto:
    graph = QDQ(np.float32)
    for name in constants:
        graph.constant(name, np.ones(WIDTH))
    graph.add(op, ["x", *constants], "y", domain="com.microsoft")
    return graph.model()


def contrib_gelu() -> ModelProto:
    return contrib("BiasGelu", "b")


def _two_linears(**names: str) -> ModelProto:
    """x -> h -> y; `names` renames the node that makes a tensor, `_` for `.`."""
    graph = linear()
    graph.nodes.clear()
    graph.tensors.clear()
    graph.linear(graph.linear("x", "h"), "y")
    for node in graph.nodes:
        node.name = names.get(node.output[0].replace(".", "_"), node.name)
    return graph.model()


def two_quantizers_of_one_name() -> ModelProto:
    return _two_linears(x_q="same", h_q="same")


def quantizer_named_as_a_product() -> ModelProto:
    return _two_linears(h_m="same", h_q="same")


def quantizer_named_as_its_scale() -> ModelProto:
    return _two_linears(h_q="h.s")


def residual() -> ModelProto:
    graph = QDQ()
    graph.add("Add", [graph.activation(graph.linear("x", "h")), "x"], "y")
    return graph.model()


def uint8_activation() -> ModelProto:
    return read(kind=np.uint8).model()


def no_zero_point() -> ModelProto:
    graph = QDQ()
    graph.constant("s", 0.05)
    graph.add("QuantizeLinear", ["x", "s"], "q")
    graph.linear(graph.add("DequantizeLinear", ["q", "s"], "x.dq"), "y")
    return graph.model()


def norm_in_float16() -> ModelProto:
    return spelled_out_norm(np.float16)


def spelled_out_norm(floats: type) -> ModelProto:
    graph = QDQ(floats)
    last = graph.constant("last", np.array([-1]))
    graph.add("ReduceMean", ["x", last], "mean")
    graph.add("Sub", ["x", "mean"], "centred")
    graph.add("Mul", ["centred", "centred"], "squared")
    graph.add("ReduceMean", ["squared", last], "variance")
    graph.add("Add", ["variance", graph.constant("e", 1e-6)], "safe")
    graph.add("Sqrt", ["safe"], "deviation")
    graph.add("Div", ["centred", "deviation"], "y")
    return graph.model()


def only_weights() -> ModelProto:
    graph = QDQ()
    graph.add("MatMul", ["x", graph.weight("w", integers(WIDTH, WIDTH))], "y")
    return graph.model()


def only_activation() -> ModelProto:
    graph = QDQ()
    weight = graph.constant("w", np.ones((WIDTH, WIDTH)))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def channel_activation() -> ModelProto:
    return read(scale=np.linspace(0.01, 0.1, WIDTH)).model()


def scale_of_each_input_channel() -> ModelProto:
    return linear(axis=0).model()


def turned_scale_of_each_input_channel() -> ModelProto:
    return turned(axis=1)


def turned(axis: int) -> ModelProto:
    """A weight stored as (N, K), transposed on its way."""
    graph = QDQ()
    weight = graph.weight("w", integers(WIDTH, WIDTH), axis=axis)
    graph.add("Transpose", [weight], "w.t", perm=[1, 0])
    graph.add("MatMul", [graph.activation("x"), "w.t"], "y")
    return graph.model()


def gemm(axis: int, trans_b: int) -> ModelProto:
    graph = QDQ()
    graph.add("Reshape", ["x", graph.constant("shape", np.array([TOKENS, WIDTH]))], "flat")
    weight = graph.weight("w", integers(WIDTH, WIDTH), axis=axis)
    bias = graph.constant("b", np.ones(WIDTH))
    graph.add("Gemm", [graph.activation("flat"), weight, bias], "y", transB=trans_b)
    return graph.model()


def conv(axis: int) -> ModelProto:
    graph = QDQ()
    graph.add("Reshape", ["x", graph.constant("shape", np.array([1, 16, 8, 8]))], "map")
    weight = graph.weight("w", integers(32, 16, 2, 2), axis=axis)
    bias = graph.constant("b", np.ones(32))
    left = graph.activation("map")
    graph.add("Conv", [left, weight, bias], "y", kernel_shape=[2, 2], strides=[2, 2])
    return graph.model()


def gemm_on_its_inner_axis() -> ModelProto:
    return gemm(axis=1, trans_b=1)


def conv_on_its_inner_axis() -> ModelProto:
    return conv(axis=1)


def computed_scale() -> ModelProto:
    return scaled("ReduceMax", "x", keepdims=0)


def reduced_scale() -> ModelProto:
    return scaled("ReduceMax", "stored", keepdims=0)


def scaled(op: str, source: str, **attributes: Any) -> ModelProto:
    graph = QDQ()
    graph.constant("stored", np.full(1, 0.05))
    graph.add(op, [source], "s", **attributes)
    parts = ["s", graph.constant("z", np.int8(0))]
    graph.add("QuantizeLinear", ["x", *parts], "x.q")
    graph.linear(graph.add("DequantizeLinear", ["x.q", *parts], "x.dq"), "y")
    return graph.model()


def dead_channel() -> ModelProto:
    values = integers(WIDTH, WIDTH)
    values[:, 3] = 0
    return linear(values=values).model()


def quantized_scores() -> ModelProto:
    graph = attention(QDQ(), scale="after", quantize_scores=True)
    return graph.model()


def one_product() -> ModelProto:
    return attention(QDQ(), quantized="qk").model()


def other_product() -> ModelProto:
    return attention(QDQ(), quantized="pv").model()


def heads_of_80() -> ModelProto:
    return attention(QDQ(), head=80).model()


def too_many_tokens() -> ModelProto:
    return attention(QDQ()).model(tokens=513)


def qkv_by_split() -> ModelProto:
    return fused_qkv(QDQ(), "Split").model()


def qkv_by_slices() -> ModelProto:
    return fused_qkv(QDQ(), "Slice").model(batch="batch")


def qkv_by_gather() -> ModelProto:
    return fused_qkv(QDQ(), "Gather").model()


def qkv_of_float_attention() -> ModelProto:
    return fused_qkv(QDQ(), "Split", quantized=False).model(batch="batch")


# -- what the compiler says ---------------------------------------------------------------------


def rejected(compiled: Compiled, node: str) -> bool:
    return bool(compiled.errors)


def lost(compiled: Compiled, node: str) -> bool:
    """It compiles, and the layer of `node` computes in float16."""
    made = [layer for layer in compiled.layers if node in layer.nodes]
    return bool(made) and not compiled.int8(node)


def apart(compiled: Compiled, node: str) -> bool:
    """Attention is several kernels; fused it is one."""
    return bool(compiled.layers) and not compiled.fused(SCORES, CONTEXT)


def as_int8(compiled: Compiled, node: str) -> bool:
    return compiled.int8("y.m/MatMul")


def without_casts(compiled: Compiled, node: str) -> bool:
    """One LayerNormalization is computed in float32: its kernel begins and ends with a Cast."""
    graph = QDQ()
    graph.norm("x", "y")
    (good,) = _kernels(graph.model())
    (bad,) = compiled.layers
    return "Cast" in good and "Cast" not in bad.name


def _kernels(model: ModelProto) -> list[str]:
    return [layer.name for layer in compiled(model).layers]


def taken(compiled: Compiled, node: str) -> bool:
    """It compiles: what is wrong with it is no matter of the compiler's."""
    return not compiled.errors


@dataclass(frozen=True)
class Trap:
    rule: str
    make: Callable[[], ModelProto]
    node: str
    proof: Proof


TRAPS = [
    Trap("opset-range", new_opset, "", taken),  # by this version: 10.3 documents up to 20
    Trap("opset-range", half_scales_too_early, "", taken),  # not by ONNX
    Trap("zero-point", shifted_activation, "x.q/QuantizeLinear", rejected),
    Trap("zero-point", shifted_uint8_activation, "x.q/QuantizeLinear", rejected),
    Trap("zero-point", shifted_weight, "y.w.dq/DequantizeLinear", rejected),
    Trap("stored-type", uint8_weight, "y.w.dq/DequantizeLinear", rejected),
    Trap("stored-type", int16_activation, "x.q/QuantizeLinear", rejected),
    Trap("stored-type", int16_weight, "y.w.dq/DequantizeLinear", rejected),
    Trap("int32-bias", int32_bias, "b.dq/DequantizeLinear", rejected),
    Trap("bad-scale", zero_scale, "y.w.dq/DequantizeLinear", rejected),
    Trap("bad-scale", negative_scale, "x.q/QuantizeLinear", rejected),
    Trap("scale-length", too_few_scales, "w.dq/DequantizeLinear", rejected),
    Trap("scale-length", too_few_zero_points, "w.dq/DequantizeLinear", rejected),
    Trap("scale-length", axis_that_is_not_there, "w.dq/DequantizeLinear", rejected),
    Trap("scalar-constant", scalar_constant, "c.dq/DequantizeLinear", rejected),
    Trap("mixed-floats", mixed_product, "y/MatMul", rejected),
    Trap("mixed-floats", mixed_addition, "y/Add", rejected),
    Trap("mixed-floats", mixed_norm, "y/LayerNormalization", rejected),
    Trap("integer-operator", integer_product, "p/QLinearMatMul", rejected),
    Trap("integer-operator", dynamic_quantization, "y/Dynamic", rejected),
    Trap("contrib-operator", contrib_gelu, "y/BiasGelu", rejected),
    Trap("name-in-use", two_quantizers_of_one_name, "same", rejected),
    Trap("name-in-use", quantizer_named_as_a_product, "same", rejected),
    Trap("name-in-use", quantizer_named_as_its_scale, "h.s", rejected),
    Trap("uint8-activation", uint8_activation, "x.q/QuantizeLinear", as_int8),
    Trap("uint8-activation", no_zero_point, "q/QuantizeLinear", as_int8),
    Trap("infinite-scale", infinite_scale, "y.w.dq/DequantizeLinear", taken),
    Trap("residual-quantized", residual, "y/Add", taken),
    Trap("half-layernorm", norm_in_float16, "deviation/Sqrt", without_casts),
    Trap("one-operand", only_weights, "y/MatMul", lost),
    Trap("one-operand", only_activation, "y/MatMul", lost),
    Trap("per-channel-activation", channel_activation, "x.q/QuantizeLinear", lost),
    Trap("weight-axis", scale_of_each_input_channel, "y.m/MatMul", lost),
    Trap("weight-axis", turned_scale_of_each_input_channel, "y/MatMul", lost),
    Trap("weight-axis", gemm_on_its_inner_axis, "y/Gemm", lost),
    Trap("weight-axis", conv_on_its_inner_axis, "y/Conv", lost),
    Trap("computed-scale", computed_scale, "x.q/QuantizeLinear", lost),
    Trap("computed-scale", reduced_scale, "x.q/QuantizeLinear", lost),
    Trap("fused-qkv", qkv_by_split, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_by_slices, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_by_gather, "qkv.m/MatMul", lost),
    Trap("fused-qkv", qkv_of_float_attention, "qkv.m/MatMul", lost),
    Trap("quantized-scores", quantized_scores, SCORES, apart),
    Trap("one-attention-product", one_product, SCORES, apart),
    Trap("one-attention-product", other_product, CONTEXT, apart),
    Trap("attention-size", heads_of_80, SCORES, apart),
    Trap("attention-size", too_many_tokens, SCORES, apart),
    Trap("dead-channel", dead_channel, "y.m/MatMul", taken),
]
each_trap = pytest.mark.parametrize(
    "trap", TRAPS, ids=[f"{trap.rule}-{trap.make.__name__}" for trap in TRAPS]
)


@each_trap
def test_a_trap_is_found_named_and_comes_with_a_way_out(trap: Trap) -> None:
    (finding,) = lint(trap.make(), TENSORRT)
    assert (finding.rule, finding.node) == (trap.rule, trap.node)
    assert finding.what and finding.fix


@each_trap
def test_the_compiler_says_the_same(trap: Trap) -> None:
    (finding,) = lint(trap.make(), TENSORRT)
    node = "y.m/MatMul" if trap.node.endswith("QuantizeLinear") else trap.node
    assert trap.proof(compiled(trap.make()), node)
    if finding.consequence == "INT8 lost":
        assert trap.proof is lost
    elif finding.consequence == "rejected":
        assert trap.proof is rejected or trap.rule == "opset-range"


def test_every_rule_has_a_trap() -> None:
    assert {trap.rule for trap in TRAPS} == {rule.id for rule in RULES["tensorrt"]}


# -- what is sound ------------------------------------------------------------------------------


def masked() -> ModelProto:
    return attention(QDQ(), mask=True).model(batch="batch")


def sliced_tokens() -> ModelProto:
    graph = QDQ()
    graph.linear("x", "h")
    graph.add("Gather", ["h", graph.constant("class", np.array(0))], "y", axis=1)
    return graph.model()


def float_weight() -> ModelProto:
    graph = QDQ()
    weight = graph.float_weight("w", integers(WIDTH, WIDTH))
    graph.add("MatMul", [graph.activation("x"), weight], "y")
    return graph.model()


def contrib_quantizers() -> ModelProto:
    graph = read(np.float32)
    for node in graph.nodes[:2]:
        node.domain = "com.microsoft"
    return graph.model()


def products_of_one_name() -> ModelProto:
    return _two_linears(h_m="same", y_m="same")


def int4_weight() -> ModelProto:
    graph = QDQ()
    values = np.clip(integers(WIDTH, WIDTH), -7, 7)
    graph.tensors.append(helper.make_tensor("w", TensorProto.INT4, values.shape, values.flatten()))
    scales = graph.constant("w.s", np.full(WIDTH, 0.1))
    graph.add("DequantizeLinear", ["w", scales], "w.dq", axis=1)
    graph.add("MatMul", [graph.activation("x"), "w.dq"], "y")
    return graph.model(opset=21)


SOUND: list[tuple[Callable[[], ModelProto], tuple[str, ...]]] = [
    (partial(linear().model), ("y.m/MatMul",)),
    (partial(linear(np.float32).model, opset=17), ("y.m/MatMul",)),
    (partial(linear().model, batch="batch"), ("y.m/MatMul",)),
    (partial(turned, axis=0), ("y/MatMul",)),
    (partial(gemm, axis=0, trans_b=1), ("y/Gemm",)),
    (partial(gemm, axis=1, trans_b=0), ("y/Gemm",)),
    (partial(conv, axis=0), ("y/Conv",)),
    (partial(scaled, "Abs", "stored"), ("y.m/MatMul",)),
    (partial(_weight_of, 1, 1, axis=1), ("y/MatMul",)),
    (float_weight, ("y/MatMul",)),
    (contrib_quantizers, ("y.m/MatMul",)),
    (products_of_one_name, ("same",)),
    (sliced_tokens, ("h.m/MatMul",)),
    (partial(attention(QDQ()).model), (SCORES, CONTEXT)),
    (partial(attention(QDQ()).model, batch="batch"), (SCORES, CONTEXT)),
    (partial(attention(QDQ()).model, tokens=512), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), scale="after").model), (SCORES, CONTEXT)),
    (partial(attention(QDQ(), quantize_context=True).model), (SCORES, CONTEXT)),
    (masked, (SCORES, CONTEXT)),
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
def test_what_is_sound_is_not_mentioned_and_compiles_to_int8(make, products) -> None:
    assert lint(make(), TENSORRT) == ()
    got = compiled(make())
    assert [node for node in products if not got.int8(node)] == [], got
    if CONTEXT in products:
        assert got.fused(SCORES, CONTEXT)


def test_a_norm_of_float32_operators_is_no_trap_and_neither_are_int4_weights() -> None:
    assert lint(spelled_out_norm(np.float32), TENSORRT) == ()
    assert lint(int4_weight(), RTX) == () and compiled(int4_weight()).int8("y/MatMul")


@pytest.mark.parametrize("opset", [13, 17, 21, 24])
def test_tensorrt_rtx_takes_opsets_of_which_tensorrt_10_3_documents_nothing(opset: int) -> None:
    model = linear(np.float32).model(opset=opset)
    assert lint(model, RTX) == () and compiled(model).int8("y.m/MatMul")
    assert [f.rule for f in lint(model, TENSORRT)] == ["opset-range"] * (opset > 20)


def test_head_sizes_and_tokens_are_the_targets_own() -> None:
    wider = msgspec.structs.replace(
        TENSORRT.quantization, attention_head_sizes=(80,), attention_max_tokens=0
    )
    target = msgspec.structs.replace(TENSORRT, quantization=wider)
    assert lint(heads_of_80(), target) == ()
    assert [f.rule for f in lint(too_many_tokens(), target)] == ["attention-size"]


def test_no_rule_of_a_cpu_runtime_speaks_of_tensorrt() -> None:
    own = {rule.id for rule in RULES["tensorrt"]}
    assert not own & {"bias-rank-1", "saturation", "no-int8-kernel", "decomposed-gelu"}
    assert RULES["tensorrt"] is RULES["tensorrt_rtx"]
    for make in (shifted_activation, heads_of_80, quantized_scores, qkv_by_split):
        found = {finding.rule for finding in lint(make(), catalog.targets()["openvino-cpu"])}
        assert not found & (own - {"opset-range", "bad-scale"})

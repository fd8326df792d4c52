"""Graphs that are rejected, or computed with other numbers."""

from functools import partial

import numpy as np
from onnx import helper

from tests.support.qdq import QDQ, WIDTH, integers
from tests.support.traps import Trap, as_int8, linear, read, rejected, taken, without_casts

WEIGHT = integers(WIDTH, WIDTH)


def int32_bias():
    graph = QDQ()
    graph.add("MatMul", [graph.activation("x"), graph.weight("w", WEIGHT)], "m")
    bias = graph.weight("b", np.ones(WIDTH, np.int32), axis=0)
    graph.add("Add", ["m", bias], "y")
    return graph.model()


def weight_of(scales, zeros, axis):
    """(K, N) = (64, 96), per channel."""
    graph = QDQ()
    graph.constant("w.i", integers(WIDTH, 96))
    graph.constant("w.s", np.full(scales, 0.01))
    graph.constant("w.z", np.zeros(zeros, np.int8))
    graph.add("DequantizeLinear", ["w.i", "w.s", "w.z"], "w.dq", axis=axis)
    graph.add("MatMul", [graph.activation("x"), "w.dq"], "y")
    return graph.model()


def scalar_constant():
    graph = QDQ()
    graph.constant("c.i", np.int8(5))
    graph.constant("c.s", 0.01)
    graph.add("DequantizeLinear", ["c.i", "c.s"], "c.dq")
    graph.add("Mul", ["x", "c.dq"], "y")
    return graph.model()


def mixed_product():
    graph = QDQ()
    left = graph.activation("x")
    graph.floats = np.float32
    graph.add("MatMul", [left, graph.weight("w", WEIGHT)], "y")
    return graph.model()


def mixed_addition():
    graph = QDQ()
    graph.add("Add", ["x", graph.constant("b", np.ones(WIDTH, np.float32))], "y")
    return graph.model()


def mixed_norm():
    graph = QDQ()
    gamma = graph.constant("g", np.ones(WIDTH, np.float32))
    graph.add("LayerNormalization", ["x", gamma], "y")
    return graph.model()


def integer_product():
    graph = QDQ(np.float32)
    parts = [graph.constant("s", 0.05), graph.constant("z", np.int8(0))]
    graph.add("QuantizeLinear", ["x", *parts], "q")
    weight = graph.constant("w", WEIGHT)
    graph.add("QLinearMatMul", ["q", *parts, weight, *parts, *parts], "p")
    graph.add("DequantizeLinear", ["p", *parts], "y")
    return graph.model()


def dynamic_quantization():
    graph = QDQ(np.float32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "y/Dynamic")
    graph.nodes.append(node)
    graph.add("DequantizeLinear", ["q", "s", "z"], "y")
    return graph.model()


def contrib_gelu():
    graph = QDQ(np.float32)
    bias = graph.constant("b", np.ones(WIDTH))
    graph.add("BiasGelu", ["x", bias], "y", domain="com.microsoft")
    return graph.model()


def two_linears(**names):
    """x -> h -> y; `names` renames the node that makes a tensor, `_` for `.`."""
    graph = linear()
    graph.nodes.clear()
    graph.tensors.clear()
    graph.linear(graph.linear("x", "h"), "y")
    for node in graph.nodes:
        node.name = names.get(node.output[0].replace(".", "_"), node.name)
    return graph.model()


def residual():
    graph = QDQ()
    graph.add("Add", [graph.activation(graph.linear("x", "h")), "x"], "y")
    return graph.model()


def no_zero_point():
    graph = QDQ()
    graph.constant("s", 0.05)
    graph.add("QuantizeLinear", ["x", "s"], "q")
    graph.linear(graph.add("DequantizeLinear", ["q", "s"], "x.dq"), "y")
    return graph.model()


def spelled_out_norm(floats):
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


new_opset = partial(linear().model, opset=21)
uint8_weight = linear(values=np.abs(WEIGHT).astype(np.uint8)).model
int16_weight = linear(values=WEIGHT.astype(np.int16)).model
zero_scale = linear(scale=[0.0] + [0.01] * (WIDTH - 1)).model
shifted_activation = read(zero=3).model

REFUSED = [
    Trap("opset-range", new_opset, "", taken),  # by this version: 10.3 documents up to 20
    Trap("opset-range", partial(linear().model, opset=18), "", taken),  # not by ONNX
    Trap("zero-point", shifted_activation, "x.q/QuantizeLinear", rejected),
    Trap("zero-point", read(zero=128, kind=np.uint8).model, "x.q/QuantizeLinear", rejected),
    Trap("zero-point", linear(zero=-2).model, "y.w.dq/DequantizeLinear", rejected),
    Trap("stored-type", uint8_weight, "y.w.dq/DequantizeLinear", rejected),
    Trap("stored-type", read(np.float32, kind=np.int16).model, "x.q/QuantizeLinear", rejected),
    Trap("stored-type", int16_weight, "y.w.dq/DequantizeLinear", rejected),
    Trap("int32-bias", int32_bias, "b.dq/DequantizeLinear", rejected),
    Trap("bad-scale", zero_scale, "y.w.dq/DequantizeLinear", rejected),
    Trap("bad-scale", read(scale=-0.1).model, "x.q/QuantizeLinear", rejected),
    Trap("scale-length", partial(weight_of, 64, 64, axis=1), "w.dq/DequantizeLinear", rejected),
    Trap("scale-length", partial(weight_of, 96, 1, axis=1), "w.dq/DequantizeLinear", rejected),
    Trap("scale-length", partial(weight_of, 96, 96, axis=2), "w.dq/DequantizeLinear", rejected),
    Trap("scalar-constant", scalar_constant, "c.dq/DequantizeLinear", rejected),
    Trap("mixed-floats", mixed_product, "y/MatMul", rejected),
    Trap("mixed-floats", mixed_addition, "y/Add", rejected),
    Trap("mixed-floats", mixed_norm, "y/LayerNormalization", rejected),
    Trap("integer-operator", integer_product, "p/QLinearMatMul", rejected),
    Trap("integer-operator", dynamic_quantization, "y/Dynamic", rejected),
    Trap("contrib-operator", contrib_gelu, "y/BiasGelu", rejected),
    Trap("name-in-use", partial(two_linears, x_q="same", h_q="same"), "same", rejected),
    Trap("name-in-use", partial(two_linears, h_m="same", h_q="same"), "same", rejected),
    Trap("name-in-use", partial(two_linears, h_q="h.s"), "h.s", rejected),
    Trap("uint8-activation", read(kind=np.uint8).model, "x.q/QuantizeLinear", as_int8),
    Trap("uint8-activation", no_zero_point, "q/QuantizeLinear", as_int8),
    Trap("infinite-scale", linear(scale=np.inf).model, "y.w.dq/DequantizeLinear", taken),
    Trap("residual-quantized", residual, "y/Add", taken),
    Trap("half-layernorm", partial(spelled_out_norm, np.float16), "deviation/Sqrt", without_casts),
]

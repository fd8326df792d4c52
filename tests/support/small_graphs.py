"""Small QDQ graphs in FP16, written by hand, for TensorRT's compiler. Stored values are random."""

import numpy as np
import onnx
from onnx import numpy_helper, parser

from vitedge.quant import e4m3

WIDTH, TOKENS, HEADS = 64, 32, 2

LINEAR = """
    q = QuantizeLinear(x, scale, zero)
    dq = DequantizeLinear(q, scale, zero)
    dw = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
    y = MatMul(dq, dw)
"""
ONE_OPERAND = """
    dw = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
    y = MatMul(x, dw)
"""


def _quantized(name, source):
    return f"""
    {name}_q = QuantizeLinear({source}, scale, zero)
    {name} = DequantizeLinear({name}_q, scale, zero)
"""


def _head(name):
    return f"""
    {name}_w = DequantizeLinear <axis = 1> (w_{name}, w_scale, w_zero)
    {name}_linear = MatMul(dx, {name}_w)
    {name}_split = Reshape({name}_linear, heads)
    {name}_headed = Transpose <perm = [0, 2, 1, 3]> ({name}_split)
"""


ATTENTION = f"""
    {_quantized("dx", "x")}
    {_head("query")}
    scaled = Mul(query_headed, scale)
    {_quantized("q", "scaled")}
    {_head("key")}
    key_turned = Transpose <perm = [0, 1, 3, 2]> (key_headed)
    {_quantized("k", "key_turned")}
    {_head("value")}
    {_quantized("v", "value_headed")}
    scores = MatMul(q, k)
    probabilities = Softmax(scores)
    {_quantized("p", "probabilities")}
    context = MatMul(p, v)
    mixed = Transpose <perm = [0, 2, 1, 3]> (context)
    merged = Reshape(mixed, tokens)
    {_quantized("dm", "merged")}
    o_w = DequantizeLinear <axis = 1> (w, w_scale, w_zero)
    y = MatMul(dm, o_w)
"""
"""Q, K, V and output projection, all in INT8; nodes are named after what they give."""


def fp8_constants():
    """The constants of a graph that is to be FP8, for `write`."""
    random = np.random.default_rng(0)
    return {
        "zero": np.zeros((), e4m3.DTYPE),
        **{
            name: e4m3.encode(random.normal(0, 100, (WIDTH, WIDTH)).astype(np.float32))
            for name in ("w", "w_query", "w_key", "w_value")
        },
        "w_zero": np.zeros(WIDTH, e4m3.DTYPE),
    }


def write(body, path, batch="1", changes=None):
    """Write the graph of `body`, from `x` to `y`, both float16 (batch, TOKENS, WIDTH)."""
    random = np.random.default_rng(0)
    constants = {
        "scale": np.array(0.05, np.float16),
        "zero": np.array(0, np.int8),
        **{
            name: random.integers(-127, 128, (WIDTH, WIDTH), np.int8)
            for name in ("w", "w_query", "w_key", "w_value")
        },
        "w_scale": np.linspace(0.01, 0.02, WIDTH, dtype=np.float16),
        "w_zero": np.zeros(WIDTH, np.int8),
        "heads": np.array([0, TOKENS, HEADS, WIDTH // HEADS]),
        "tokens": np.array([0, TOKENS, WIDTH]),
        **(changes or {}),
    }
    shape = f"float16[{batch}, {TOKENS}, {WIDTH}]"
    head = '<ir_version: 9, opset_import: ["" : 19]>'
    model = parser.parse_model(f"{head} small ({shape} x) => ({shape} y) {{ {body} }}")
    read = {name for node in model.graph.node for name in node.input}
    for name, value in constants.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, path)
    return path

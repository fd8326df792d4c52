"""QDQ graphs in the making, as TensorRT takes them unless asked otherwise: x -> … -> y."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

TOKENS, WIDTH = 16, 64


def integers(*shape, top=99, seed=0):
    """INT8 weights of -`top` to `top`, none of which is zero."""
    random = np.random.default_rng(seed)
    return (random.integers(1, top + 1, shape) * random.choice([-1, 1], shape)).astype(np.int8)


class QDQ:
    """x (1, TOKENS, WIDTH) -> … -> y; constants and scales in `floats`."""

    def __init__(self, floats=np.float16):
        self.floats = floats
        self.nodes, self.tensors = [], []

    def constant(self, name, value):
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(self.floats)
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], f"{output}/{op}", **attributes))
        return output

    def activation(self, name, scale=0.05, zero=0, kind=np.int8):
        """Q/DQ on an activation; a list of scales is one for each of its last axis."""
        scale = np.asarray(scale, np.float64)
        axis = {"axis": 2} if scale.ndim else {}
        self.constant(f"{name}.s", scale)
        self.constant(f"{name}.z", np.full(scale.shape, zero, kind))
        self.add("QuantizeLinear", [name, f"{name}.s", f"{name}.z"], f"{name}.q", **axis)
        parts = [f"{name}.q", f"{name}.s", f"{name}.z"]
        return self.add("DequantizeLinear", parts, f"{name}.dq", **axis)

    def weight(self, name, values, axis=1, scale=0.01, zero=0):
        """A stored INT8 weight with a scale a channel of `axis`."""
        scales = np.broadcast_to(np.asarray(scale, np.float64), values.shape[axis])
        self.constant(f"{name}.i", values)
        self.constant(f"{name}.s", scales)
        self.constant(f"{name}.z", np.full(scales.shape, zero, values.dtype))
        parts = [f"{name}.i", f"{name}.s", f"{name}.z"]
        return self.add("DequantizeLinear", parts, f"{name}.dq", axis=axis)

    def float_weight(self, name, values):
        """A weight stored in float with Q and DQ, as NVIDIA's Model Optimizer writes it."""
        self.constant(f"{name}.f", values / 100)
        channels = values.shape[1]
        parts = [self.constant(f"{name}.s", np.full(channels, 0.01))]
        parts.append(self.constant(f"{name}.z", np.zeros(channels, np.int8)))
        self.add("QuantizeLinear", [f"{name}.f", *parts], f"{name}.q", axis=1)
        return self.add("DequantizeLinear", [f"{name}.q", *parts], f"{name}.dq", axis=1)

    def linear(self, source, output, **weight):
        """Q/DQ, MatMul and the float bias; `source` may be dequantized already."""
        left = source if source.endswith(".dq") else self.activation(source)
        values = weight.pop("values", integers(WIDTH, WIDTH))
        right = self.weight(f"{output}.w", values, **weight)
        self.add("MatMul", [left, right], f"{output}.m")
        bias = self.constant(f"{output}.b", np.ones(values.shape[1]))
        return self.add("Add", [f"{output}.m", bias], output)

    def norm(self, source, output):
        gamma = self.constant(f"{output}.gamma", np.ones(WIDTH))
        beta = self.constant(f"{output}.beta", np.zeros(WIDTH))
        return self.add("LayerNormalization", [source, gamma, beta], output)

    def headed(self, source, output, head, *order):
        """(B, T, W) -> (B, T, heads, head), and that in the order asked for."""
        shape = self.constant(f"{output}.shape", np.array([0, 0, -1, head]))
        self.add("Reshape", [source, shape], f"{output}.r")
        return self.add("Transpose", [f"{output}.r"], output, perm=list(order))

    def merged(self, source, output, wide):
        """(B, heads, T, head) -> (B, T, W)."""
        self.add("Transpose", [source], f"{output}.t", perm=[0, 2, 1, 3])
        shape = self.constant(f"{output}.shape", np.array([0, 0, wide]))
        return self.add("Reshape", [f"{output}.t", shape], output)

    def model(self, batch=1, opset=20, tokens=TOKENS, *, sizes=(), output="y"):
        """The graph to `output` from `x` (batch, *sizes), or (batch, tokens, WIDTH)."""
        shape = [batch, *(sizes or (tokens, WIDTH))]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.floats))
        graph = helper.make_graph(
            self.nodes,
            "trap",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_empty_tensor_value_info(output)],
            self.tensors,
        )
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        typed = onnx.shape_inference.infer_shapes(model)
        result = typed.graph.output[0]
        if not result.type.tensor_type.elem_type:  # another domain's operator made it
            result = helper.make_tensor_value_info(output, kind, shape)
        model.graph.output[0].CopyFrom(result)
        return model


def attention(
    graph,
    *,
    head=32,
    quantized="qkpv",
    scale="before",
    quantize_scores=False,
    quantize_context=False,
    mask=False,
):
    """Attention of two heads over x with Linears of their own for Q, K and V."""
    source = graph.activation("x")
    for name in "qkv":
        values = integers(WIDTH, 2 * head)
        graph.linear(source, f"{name}0", values=values)
        graph.headed(f"{name}0", name, head, *((0, 2, 3, 1) if name == "k" else (0, 2, 1, 3)))
    return _attend(
        graph,
        head,
        quantized,
        scale,
        quantize_scores=quantize_scores,
        quantize_context=quantize_context,
        mask=mask,
    )


def fused_qkv(graph, cut, *, quantized=True, quantize_before=False, weight="per channel"):
    """Attention of two heads over x with one Linear for Q, K and V, cut by Split, Slice or Gather.

    `quantize_before`: Q/DQ on what it makes, before that is cut. `weight`: INT8 with a scale for
    each channel or one for all, or float with Q and DQ.
    """
    head = WIDTH // 2
    values = integers(WIDTH, 3 * WIDTH)
    source = graph.activation("x")
    if weight == "per channel":
        right = graph.weight("qkv.w", values)
    elif weight == "float":
        right = graph.float_weight("qkv.w", values)
    else:
        parts = [graph.constant("qkv.w", values), graph.constant("qkv.w.s", 0.01)]
        right = graph.add("DequantizeLinear", parts, "qkv.w.dq")
    graph.add("MatMul", [source, right], "qkv.m")
    graph.add("Add", ["qkv.m", graph.constant("qkv.b", np.ones(3 * WIDTH))], "qkv")
    whole = graph.activation("qkv") if quantize_before else "qkv"
    if cut == "Gather":
        shape = graph.constant("parts.shape", np.array([0, 0, 3, 2, head]))
        graph.add("Reshape", [whole, shape], "parts.r")
        graph.add("Transpose", ["parts.r"], "parts", perm=[2, 0, 3, 1, 4])
        for index, name in enumerate(("q", "k.t", "v")):
            graph.add("Gather", ["parts", graph.constant(f"{name}.n", np.array(index))], name)
        graph.add("Transpose", ["k.t"], "k", perm=[0, 1, 3, 2])
        return _attend(graph, head, "qkpv" if quantized else "")
    if cut == "Split":
        names = ["q0", "k0", "v0"]
        graph.nodes.append(
            helper.make_node("Split", [whole], names, "cut/Split", axis=2, num_outputs=3)
        )
    else:
        for index, name in enumerate("qkv"):
            ends = (index * WIDTH, (index + 1) * WIDTH, 2)
            bounds = [graph.constant(f"{name}.{i}", np.array([end])) for i, end in enumerate(ends)]
            graph.add("Slice", [whole, *bounds], f"{name}0")
    for name in "qkv":
        graph.headed(f"{name}0", name, head, *((0, 2, 3, 1) if name == "k" else (0, 2, 1, 3)))
    return _attend(graph, head, "qkpv" if quantized else "")


def _attend(
    graph,
    head,
    quantized,
    scale="before",
    *,
    quantize_scores=False,
    quantize_context=False,
    mask=False,
):
    """q, v (B, 2, T, head) and k (B, 2, head, T) -> y (B, T, WIDTH)."""
    factor = graph.constant("scale", float(head) ** -0.5)
    query = graph.add("Mul", ["q", factor], "q.scaled") if scale == "before" else "q"
    left, right = (query, "k") if "qk" not in quantized else map(graph.activation, (query, "k"))
    scores = graph.add("MatMul", [left, right], "scores")
    scores = graph.activation(scores) if quantize_scores else scores
    scores = graph.add("Mul", [scores, factor], "scaled") if scale == "after" else scores
    if mask:
        scores = graph.add("Add", [scores, graph.constant("mask", np.eye(TOKENS))], "masked")
    weights = graph.add("Softmax", [scores], "p", axis=-1)
    if "pv" in quantized:
        graph.add("MatMul", [graph.activation(weights, 1 / 127), graph.activation("v")], "context")
    else:
        graph.add("MatMul", [weights, "v"], "context")
    context = graph.activation("context") if quantize_context else "context"
    graph.merged(context, "merged", 2 * head)
    graph.linear("merged", "y", values=integers(2 * head, WIDTH))
    return graph

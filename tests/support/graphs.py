"""Small attention graphs in ONNX's own text, with one outlier channel in every source."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, parser

from vitedge.core.spec import Quantization
from vitedge.graph.run import tapped

OUTLIER = 1000.0
"""Channel 1 of every source is so many times larger; what reads it undoes that."""
TOKENS, WIDTH, HEADS = 16, 12, 2
HEAD = WIDTH // HEADS

HEAD_TEXT = """
    raw = Cast <to = 1> (image)
    unit = Mul(raw, small)
    pixels = Transpose <perm = [0, 3, 1, 2]> (unit)
    x = Reshape(unit, tokens)
"""
NORM = "n = LayerNormalization <epsilon = 0.000001> (x, gamma, beta)"
HEADED = """
    s{0} = Reshape({1}, heads)
    {0} = Transpose <perm = [0, 2, 1, 3]> (s{0})
"""
ATTEND = """
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    scaled = Mul(q, scale)
    scores = MatMul(scaled, kt)
    probabilities = Softmax(scores)
    context = MatMul(probabilities, v)
    mixed = Transpose <perm = [0, 2, 1, 3]> (context)
    merged = Reshape(mixed, tokens)
    projected = MatMul(merged, w_proj)
    y = Add(projected, x)
"""
EVERYTHING = Quantization(
    activations="int8", weights="full", attention=("qk", "pv"), operators=("MatMul", "Gemm", "Conv")
)
FUSED = f"""
    {NORM}
    product = MatMul(n, w_qkv)
    qkv = Add(product, b_qkv)
    split = Reshape(qkv, split_heads)
    parts = Transpose <perm = [2, 0, 3, 1, 4]> (split)
    q4, k4, v4 = Split <axis = 0, num_outputs = 3> (parts)
    q = Squeeze(q4, first)
    k = Squeeze(k4, first)
    v = Squeeze(v4, first)
    {ATTEND}
"""
SPLIT = f"""
    {NORM}
    q0 = MatMul(n, w_q)
    k0 = MatMul(n, w_k)
    v0 = MatMul(n, w_v)
    v1 = Add(v0, b_v)
    {HEADED.format("q", "q0")}
    {HEADED.format("k", "k0")}
    {HEADED.format("v", "v1")}
    {ATTEND}
"""
PAIRS = {
    "LayerNorm to MatMul": (
        f"{NORM}\n p = MatMul(n, w)\n y = Add(p, b)",
        *("LayerNormalization_n", "MatMul_p", "n", 2),
    ),
    "LayerNorm to Gemm": (
        f"{NORM}\n r = Reshape(n, rows)\n y = Gemm <transB = 1> (r, w_t, b)",
        *("LayerNormalization_n", "Gemm_y", "r", 1),
    ),
    "LayerNorm spelled out": (
        "u = Mul(x, gamma)\n n = Add(u, beta)\n y = MatMul(n, w)",
        *("Mul_u", "MatMul_y", "n", 2),
    ),
    "Linear, ReLU, Linear": (
        "h = MatMul(x, w_grown)\n h2 = Add(b_grown, h)\n r = Relu(h2)\n y = MatMul(r, w)",
        *("MatMul_h", "MatMul_y", "r", 2),
    ),
    "Conv, ReLU, Conv": (
        "h = Conv(pixels, c_grown, b_grown)\n r = Relu(h)\n y = Conv(r, c)",
        *("Conv_h", "Conv_y", "r", 1),
    ),
    "Conv, pool, grouped Conv": (
        "h = Conv(pixels, c_grown, b_grown)\n r = MaxPool <kernel_shape = [2, 2]> (h)"
        "\n y = Conv <group = 2> (r, c_groups)",
        *("Conv_h", "Conv_y", "r", 1),
    ),
}
"""A graph; what is rescaled, from and to; the tensor between and its axis of channels."""
IMAGES = [np.random.default_rng(seed).integers(0, 256, (1, 8, 8, 3), np.uint8) for seed in range(4)]


def weights():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    grown = np.ones(WIDTH, np.float32)
    grown[1] = OUTLIER
    qkv = normal(WIDTH, 3 * WIDTH) / grown[:, None]
    columns = np.concatenate([grown, 1 / grown, grown])  # Q, K and V
    return {
        "gamma": (1 + normal(WIDTH) / 10) * grown,
        "beta": normal(WIDTH) * grown,
        "w": normal(WIDTH, WIDTH) / grown[:, None],
        "w_t": (normal(WIDTH, WIDTH) / grown[:, None]).T.copy(),
        "b": normal(WIDTH),
        "w_plain": normal(WIDTH, WIDTH),
        "w_grown": normal(WIDTH, WIDTH) * grown,
        "b_grown": normal(WIDTH) * grown,
        "w_qkv": qkv * columns,
        "b_qkv": normal(3 * WIDTH) * columns,
        "w_q": normal(WIDTH, WIDTH) / grown[:, None] * grown,
        "w_k": normal(WIDTH, WIDTH) / grown[:, None] / grown,
        "w_v": normal(WIDTH, WIDTH) / grown[:, None] * grown,
        "b_v": normal(WIDTH) * grown,
        "w_proj": normal(WIDTH, WIDTH) / grown[:, None],
        "c_grown": np.abs(normal(WIDTH, 3, 3, 3)) * grown[:, None, None, None],
        "c": normal(4, WIDTH, 3, 3) / grown[:, None, None],
        "c_groups": normal(4, WIDTH // 2, 3, 3)
        / np.repeat(grown.reshape(2, -1), 2, axis=0)[:, :, None, None],
        "c_depthwise": normal(WIDTH, 1, 3, 3),
        "c_mixing": normal(WIDTH, WIDTH, 1, 1) / grown[:, None, None],
        "mean": normal(WIDTH),
        "variance": np.abs(normal(WIDTH)) + 0.1,
        "scale": np.float32(HEAD**-0.5),
        "heads": np.array([1, TOKENS, HEADS, HEAD]),
        "split_heads": np.array([1, TOKENS, 3, HEADS, HEAD]),
        "tokens": np.array([1, TOKENS, WIDTH]),
        "rows": np.array([TOKENS, WIDTH]),
        "first": np.array([0]),
    }


def build(folder, body, head=HEAD_TEXT, **changed):
    """A graph of `body`, from `x` (1, tokens, width) or `pixels` (1, 3, 8, 8) to `y`.

    `changed` are further constants, or take the place of `weights`.
    """
    graph = parser.parse_graph(f"g (uint8[1, 8, 8, 3] image) => (float y) {{ {head} {body} }}")
    graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("y"))
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{node.output[0]}" if index else "cast"
    used = {*changed, *(name for node in graph.node for name in node.input)}
    used -= {name for node in graph.node for name in node.output}
    for name, value in {**weights(), "small": np.float32(1 / 64), **changed}.items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        if name in used:
            graph.initializer.append(numpy_helper.from_array(array, name))
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def run(path, images=IMAGES):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image})[0] for image in images])


def peaks(path, name, axis):
    """The largest magnitude of each channel of a tensor, on one image."""
    (values,) = tapped(path, [name])(IMAGES[0])
    return np.abs(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)).max(axis=1)


def spread(path, name, axis):
    """How much larger the largest channel of a tensor is than the median one."""
    largest = peaks(path, name, axis)
    return float(largest.max() / np.median(largest))

"""Somebody's ViT-like ONNX files with several outputs: logits, patch tokens, a class index, and
queries: the tokens whose scores are highest.

Random weights; `large` is how many times larger the position embedding of one token is.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

SIZE, WIDTH, TOKENS, CLASSES, DENSE = 32, 64, 16, 10, 32
QUERIES = 6
LARGE_TOKEN = 5
PREPROCESS = f"height = {SIZE}\nwidth = {SIZE}\nresize = 'exact'\nstd = [0.25, 0.25, 0.25]\n"
TRUNK = """
    patches = Conv <kernel_shape = [8, 8], strides = [8, 8]> (pixels, w_patch)
    flat = Reshape(patches, flat_shape)
    first = Transpose <perm = [0, 2, 1]> (flat)
    x = Add(first, positions)
    n = LayerNormalization <epsilon = 0.000001> (x, gamma)
    up = MatMul(n, w_up)
    h = Relu(up)
    down = MatMul(h, w_down)
    tokens = Add(x, down)
    pooled = ReduceMean <keepdims = 0> (tokens, token_axis)
    logits = MatMul(pooled, w_head)
    label = ArgMax <axis = 1, keepdims = 0> (logits)
    dense = MatMul(tokens, w_neck)
    scores = ReduceMax <keepdims = 0> (dense, last_axis)
    best, place = TopK(scores, queries)
    column = Unsqueeze(place, last_axis)
    places = Expand(column, width)
    chosen = GatherElements <axis = 1> (tokens, places)
    classes = MatMul(chosen, w_head)
    corners = MatMul(chosen, w_box)
    boxes = Sigmoid(corners)
"""
OUTPUTS = {
    "tokens": (TensorProto.FLOAT, ["batch", TOKENS, WIDTH]),
    "logits": (TensorProto.FLOAT, ["batch", CLASSES]),
    "label": (TensorProto.INT64, ["batch"]),
    "dense": (TensorProto.FLOAT, ["batch", TOKENS, DENSE]),
    "classes": (TensorProto.FLOAT, ["batch", QUERIES, CLASSES]),
    "boxes": (TensorProto.FLOAT, ["batch", QUERIES, 4]),
}


def constants(large=1.0):
    random = np.random.default_rng(3)

    def normal(*sizes, fan):
        return (random.normal(size=sizes) / np.sqrt(fan)).astype(np.float32)

    positions = 0.1 * normal(1, TOKENS, WIDTH, fan=1)
    positions[:, LARGE_TOKEN] *= 10 * large
    return {
        "w_patch": normal(WIDTH, 3, 8, 8, fan=192),
        "flat_shape": np.array([0, WIDTH, TOKENS]),
        "positions": positions,
        "gamma": np.ones(WIDTH, np.float32),
        "w_up": normal(WIDTH, 4 * WIDTH, fan=WIDTH),
        "w_down": normal(4 * WIDTH, WIDTH, fan=4 * WIDTH),
        "token_axis": np.array([1]),
        "w_head": normal(WIDTH, CLASSES, fan=WIDTH),
        "w_neck": normal(WIDTH, DENSE, fan=WIDTH),
        "last_axis": np.array([-1]),
        "queries": np.array([QUERIES]),
        "width": np.array([1, 1, WIDTH]),
        "w_box": normal(WIDTH, 4, fan=WIDTH),
    }


def write(folder, *outputs, large=1.0):
    """`folder/model.onnx` that gives `outputs` of OUTPUTS in that order, and `model.toml`."""
    graph = parser.parse_graph(f"g (float[batch, 3, 32, 32] pixels) => (float x) {{ {TRUNK} }}")
    used = set(outputs)
    for node in reversed(graph.node):
        node.name = node.output[0]
        used |= {name for name in node.input if used.intersection(node.output)}
    kept = [node for node in graph.node if used.intersection(node.output)]
    del graph.node[:], graph.output[:]
    graph.node.extend(kept)
    graph.output.extend(helper.make_tensor_value_info(name, *OUTPUTS[name]) for name in outputs)
    stored = constants(large).items()
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in stored if k in used)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "model.onnx")
    (folder / "model.toml").write_text(PREPROCESS)
    return folder / "model.onnx"


def images(folder, count=16, labelled=True, seed=0):
    """`folder/images.npz`: smooth pictures, with labels unless told otherwise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3), np.uint8)
    arrays = {"images": np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))}
    if labelled:
        arrays["labels"] = random.integers(0, CLASSES, count)
    np.savez(folder / "images.npz", **arrays)
    return folder / "images.npz"

"""Which outputs are in an order that a graph's own scores choose, as anybody may write it."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from vitedge.core.matching import PAIRS
from vitedge.graph import selection
from vitedge.graph.run import Runner

TOKENS, WIDTH, QUERIES = 12, 8, 5

CHOICE = """
    score = ReduceMax <keepdims = 0> (image, last)
    best, place = TopK(score, five)
    column = Unsqueeze(place, last)
    places = Expand(column, wide)
    chosen = GatherElements <axis = 1> (image, places)
"""
ATTENTION = """
    turned = Transpose <perm = [0, 2, 1]> ({keys})
    logits = MatMul({queries}, turned)
    shares = Softmax(logits)
    mixed = MatMul(shares, {keys})
    a = Add({queries}, mixed)
"""
LEARNED = "zeros = Mul(chosen, nothing)\n learned = Add(zeros, embedding)"
BODIES = {
    "queries and their self-attention": (
        CHOICE + ATTENTION.format(queries="chosen", keys="chosen") + "b = MatMul(chosen, w)",
        "a b",
    ),
    "learned queries that attend to what was chosen": (
        CHOICE + LEARNED + ATTENTION.format(queries="learned", keys="chosen") + "b = Neg(learned)",
        "",
    ),
    "contents learned by place, boxes of what was chosen": (
        CHOICE + LEARNED + "\n a = Mul(learned, chosen)\n b = MatMul(chosen, w)",
        "a b",
    ),
    "a relation of all pairs of queries": (
        CHOICE
        + """turned = Transpose <perm = [0, 2, 1]> (chosen)
        mapped = MatMul(chosen, w)
        a = MatMul(mapped, turned)
        b = MatMul(chosen, w)""",
        "a(pairs) b",
    ),
    "a map beside the queries": (CHOICE + "a = Identity(image)\n b = MatMul(chosen, w)", "b"),
    "a fixed choice": (
        """best, place = TopK(fixed, five)
        a = Gather <axis = 1> (image, place)
        b = Neg(a)""",
        "",
    ),
    "values alone": (
        """score = ReduceMax <keepdims = 0> (image, last)
        a, place = TopK(score, five)
        b = Neg(a)""",
        "",
    ),
    "the best pairs of query and class": (
        """pairs = Flatten <axis = 1> (image)
        a, place = TopK(pairs, five)
        query = Div(place, eight)
        column = Unsqueeze(query, last)
        places = Expand(column, wide)
        b = GatherElements <axis = 1> (image, places)""",
        "a b",
    ),
    "experts, by a router": (
        """score = ReduceMean <keepdims = 0> (image, middle)
        weight, place = TopK(score, five)
        expert = Gather <axis = 0> (embedding8, place)
        factor = Unsqueeze(weight, last)
        weighed = Mul(expert, factor)
        a = ReduceSum <keepdims = 0> (weighed, middle)
        b = MatMul(a, w)""",
        "",
    ),
}


@pytest.mark.parametrize(("body", "ordered"), BODIES.values(), ids=BODIES)
def test_it_is_told_by_what_turns_around_with_the_choice(tmp_path, body, ordered):
    random = np.random.default_rng(0)
    constants = {
        "last": np.array([-1]),
        "middle": np.array([1]),
        "five": np.array([QUERIES]),
        "eight": np.array(WIDTH),
        "wide": np.array([1, 1, WIDTH]),
        "w": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "nothing": np.zeros(1, np.float32),
        "embedding": random.normal(size=(QUERIES, WIDTH)).astype(np.float32),
        "embedding8": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "fixed": random.normal(size=TOKENS).astype(np.float32),
    }
    graph = parser.parse_graph(
        f"g (float[b, {TOKENS}, {WIDTH}] image) => (float a, float b) {{ {body} }}"
    )
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    used = selection.read_names(graph.node)
    graph.initializer.extend(
        numpy_helper.from_array(v, k) for k, v in constants.items() if k in used
    )
    path = tmp_path / "model.onnx"
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    images = random.normal(size=(3, TOKENS, WIDTH)).astype(np.float32)
    orders = selection.ordered_by(path, images, Runner(path)(images))
    named = [name + "(pairs)" * by.startswith(PAIRS) for name, by in orders.items()]
    assert sorted(named) == ordered.split()
    assert all("TopK" in name for name in orders.values())
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]

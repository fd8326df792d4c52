"""Attention in the form that compilers fuse: the scale before Q·Kᵀ, and nothing else changed."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from tests.support.graphs import HEAD, HEADED, NORM, build, run
from vitedge.graph.prepare import prepare, scale_queries
from vitedge.graph.run import Runner

PROJECTED = f"""
    {NORM}
    q0 = MatMul(n, w_q)
    k0 = MatMul(n, w_k)
    v0 = MatMul(n, w_v)
    {HEADED.format("q", "q0")}
    {HEADED.format("k", "k0")}
    {HEADED.format("v", "v0")}
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    scores = MatMul(q, kt)
"""
AFTER = """
    probabilities = Softmax(scaled)
    context = MatMul(probabilities, v)
    mixed = Transpose <perm = [0, 2, 1, 3]> (context)
    y = Reshape(mixed, tokens)
"""
SCALINGS = {
    "multiplied": "scaled = Mul(scores, scale)",
    "multiplied from the left": "scaled = Mul(scale, scores)",
    "divided": "scaled = Div(scores, root)",
}
ROOT = {"root": np.array([HEAD**0.5], np.float32)}


def product(path):
    """The node that computes Q·Kᵀ, and the makers of all tensors."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    return makers[softmax.input[0]], makers


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_scale_after_the_product_moves_onto_the_queries(tmp_path, scaling):
    path = build(tmp_path, PROJECTED + SCALINGS[scaling] + AFTER, **ROOT)
    want = run(path)
    model = ir.load(path)
    scale_queries(model.graph)
    ir.save(model, path)
    node, makers = product(path)
    assert node.op_type == "MatMul"
    assert makers[node.input[0]].op_type in ("Mul", "Div")
    np.testing.assert_allclose(run(path), want, rtol=0, atol=1e-5 * float(np.abs(want).max()))


@pytest.mark.parametrize(
    "body",
    [
        PROJECTED + "scaled = Div(root, scores)" + AFTER,
        PROJECTED + "half = Mul(scores, scale)\n scaled = Add(half, scores)" + AFTER,
        PROJECTED + "scaled = Mul(scores, ramp)" + AFTER,
    ],
    ids=["divides by the product", "the product is read twice", "no scalar"],
)
def test_anything_else_stays_where_it_is(tmp_path, body):
    ramp = np.linspace(1, 2, 16, dtype=np.float32)
    path = build(tmp_path, body, **ROOT, ramp=ramp)
    model = ir.load(path)
    before = ir.to_proto(model)
    scale_queries(model.graph)
    assert ir.to_proto(model) == before


@pytest.mark.parametrize("batch", [1, "dynamic"])
def test_a_whole_model_computes_the_same(tmp_path, digits_graph, held_out, batch):
    path = digits_graph(batch).path
    images = held_out.images[: 2 if batch == "dynamic" else 1]
    after = path.with_name(f"attention-{batch}.onnx")
    prepare(path, after, images)
    want, got = (Runner(p)(images)[0] for p in (path, after))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
    model = onnx.load(after)
    linears = {t.name: numpy_helper.to_array(t).shape for t in model.graph.initializer}
    assert (96, 288) not in linears.values()
    onnx.checker.check_model(model)

"""A Linear that makes several things at once is split; what is computed stays as it was."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.support.graphs import ATTEND, FUSED, HEAD, HEADS, IMAGES, NORM, TOKENS, WIDTH, build, run
from vitedge.graph.external import write
from vitedge.graph.qkv_split import split
from vitedge.graph.run import Runner, shapes

HEADS_FIRST = np.array([1, TOKENS, HEADS, 3, HEAD])
AXES = {
    "thirds": np.array([0, 1, 2]),
    "at0": np.array(0),
    "at1": np.array(1),
    "at2": np.array(2),
    "s0": np.array([0]),
    "s1": np.array([WIDTH]),
    "s2": np.array([2 * WIDTH]),
    "s3": np.array([3 * WIDTH]),
    "last": np.array([2]),
}
QKV = f"{NORM}\n product = MatMul(n, w_qkv)\n qkv = Add(product, b_qkv)"
TO_HEADS = "\n".join(
    f"h{x} = Reshape({x}0, heads)\n {x} = Transpose <perm = [0, 2, 1, 3]> (h{x})" for x in "qkv"
)
FORMS = {
    "stacked, then split and squeezed": FUSED,
    "stacked, then gathered": f"""{QKV}
        split = Reshape(qkv, split_stacked)
        parts = Transpose <perm = [2, 0, 3, 1, 4]> (split)
        q = Gather <axis = 0> (parts, at0)
        k = Gather <axis = 0> (parts, at1)
        v = Gather <axis = 0> (parts, at2)
        {ATTEND}""",
    "split first": f"""{QKV}
        q0, k0, v0 = Split <axis = -1, num_outputs = 3> (qkv)
        {TO_HEADS}
        {ATTEND}""",
    "sliced": f"""{QKV}
        q0 = Slice(qkv, s0, s1, last)
        k0 = Slice(qkv, s1, s2, last)
        v0 = Slice(qkv, s2, s3, last)
        {TO_HEADS}
        {ATTEND}""",
    "heads first, as in GPT-NeoX": f"""{QKV}
        split = Reshape(qkv, split_heads)
        parts = Transpose <perm = [3, 0, 2, 1, 4]> (split)
        q = Gather <axis = 0> (parts, at0)
        k = Gather <axis = 0> (parts, at1)
        v = Gather <axis = 0> (parts, at2)
        {ATTEND}""",
    "keys already transposed": f"""{QKV}
        split = Reshape(qkv, split_stacked)
        parts = Transpose <perm = [2, 0, 3, 4, 1]> (split)
        qt = Gather <axis = 0> (parts, at0)
        kt = Gather <axis = 0> (parts, at1)
        vt = Gather <axis = 0> (parts, at2)
        q = Transpose <perm = [0, 1, 3, 2]> (qt)
        v = Transpose <perm = [0, 1, 3, 2]> (vt)
        scores = MatMul(q, kt)
        probabilities = Softmax(scores)
        context = MatMul(probabilities, v)
        mixed = Transpose <perm = [0, 2, 1, 3]> (context)
        y = Reshape(mixed, tokens)""",
    "without a bias, gated": f"""{NORM}
        product = MatMul(n, w_qkv)
        pa, pb, pc = Split <axis = -1, num_outputs = 3> (product)
        gate = Sigmoid(pa)
        gated = Mul(gate, pb)
        y = Add(gated, pc)""",
}
LEFT_ALONE = {
    "read whole, too": f"""{QKV}
        pa, pb, pc = Split <axis = -1, num_outputs = 3> (qkv)
        all = ReduceSum(qkv, last)
        ab = Mul(pa, pb)
        abc = Add(ab, pc)
        y = Add(abc, all)""",
    "not taken apart": f"{QKV}\n moved = Transpose <perm = [0, 2, 1]> (qkv)\n y = Relu(moved)",
    "cut between tokens": f"""{QKV}
        pa, pb = Split <axis = 1, num_outputs = 2> (qkv)
        y = Mul(pa, pb)""",
    "weights of two": f"""{QKV}
        pa, pb, pc = Split <axis = -1, num_outputs = 3> (qkv)
        ab = Mul(pa, pb)
        abc = Add(ab, pc)
        other = MatMul(x, w_qkv)
        pd, pe, pf = Split <axis = -1, num_outputs = 3> (other)
        de = Mul(pd, pe)
        def = Add(de, pf)
        y = Add(abc, def)""",
}


def split_graph(folder, body):
    stacked = np.array([1, TOKENS, 3, HEADS, HEAD])
    changed = {"split_stacked": stacked, "split_heads": stacked if body == FUSED else HEADS_FIRST}
    path = build(folder, body, **{**AXES, **changed})
    model = ir.load(path)
    count = split(model, shapes(path, IMAGES[0]))
    write(model, folder / "split.onnx")
    return path, folder / "split.onnx", count


@pytest.mark.parametrize("form", FORMS)
def test_each_part_gets_a_linear_of_its_own(tmp_path, form):
    path, after, count = split_graph(tmp_path, FORMS[form])
    assert count == 1
    nodes = onnx.load(after).graph.node
    linears = [node for node in nodes if node.op_type == "MatMul" and node.input[0] == "n"]
    assert len(linears) == 3
    assert not [node for node in nodes if node.op_type in ("Split", "Gather", "Slice", "Squeeze")]
    want = run(path)
    np.testing.assert_allclose(run(after), want, rtol=0, atol=1e-5 * float(np.abs(want).max()))


@pytest.mark.parametrize("form", LEFT_ALONE)
def test_what_cannot_be_told_apart_stays_as_it_is(tmp_path, form):
    path, after, count = split_graph(tmp_path, LEFT_ALONE[form])
    assert count == 0
    np.testing.assert_array_equal(run(after), run(path))


def test_a_dynamic_batch_stays_dynamic(tmp_path, digits_graph, held_out):
    path = digits_graph("dynamic").path
    model = ir.load(path)
    assert split(model, shapes(path, held_out.images[:2])) == 4
    write(model, tmp_path / "split.onnx")
    for count in (1, 2, 5):
        images = held_out.images[:count]
        want, got = (Runner(p)(images)[0] for p in (path, tmp_path / "split.onnx"))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))

"""What computes GELU, Softmax or LayerNorm becomes that operator, however it is written."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from vitedge.graph.foreign.fusion import fuse
from vitedge.graph.run import Runner, shapes

X = np.random.default_rng(0).normal(0, 2, (1, 5, 8)).astype(np.float32)
ERF = "d = Div(x, root2) e = Erf(d) s = Add(one, e)"
CENTRED = "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last)"
SPELLED = {
    "x·(1 + erf)·0.5": ("Gelu", f"{ERF} p = Mul(x, s) y = Mul(p, half)"),
    "0.5·x·(1 + erf)": ("Gelu", f"{ERF} p = Mul(half, x) y = Mul(p, s)"),
    "x/2·(erf + 1)": ("Gelu", f"{ERF} p = Div(x, two) y = Mul(s, p)"),
    "x·(0.5·(1 + erf))": ("Gelu", f"{ERF} p = Mul(s, half) y = Mul(x, p)"),
    "tanh of a cube": (
        "Gelu",
        "c = Pow(x, three) k = Mul(c, cubic) a = Add(x, k) i = Mul(a, root) t = Tanh(i)"
        " s = Add(t, one) p = Mul(x, s) y = Mul(half, p)",
    ),
    "tanh of a square": (
        "Gelu",
        "q = Mul(x, x) k = Mul(q, cubic) a = Add(k, one) b = Mul(x, root) i = Mul(a, b)"
        " t = Tanh(i) s = Add(t, one) h = Mul(half, s) y = Mul(x, h)",
    ),
    "softmax with its maximum": (
        "Softmax",
        "g = ReduceMax(x, last) d = Sub(x, g) e = Exp(d) n = ReduceSum(e, last) y = Div(e, n)",
    ),
    "softmax without": ("Softmax", "e = Exp(x) n = ReduceSum(e, last) y = Div(e, n)"),
    "tf.nn.batch_normalization": (
        "LayerNormalization",
        f"{CENTRED} a = Add(v, small) r = Sqrt(a) i = Reciprocal(r) k = Mul(i, gamma)"
        " xk = Mul(x, k) mk = Mul(m, k) b = Sub(beta, mk) y = Add(xk, b)",
    ),
    "a power of -0.5": (
        "LayerNormalization",
        f"{CENTRED} a = Add(small, v) r = Pow(a, minus) n = Mul(d, r) g = Mul(gamma, n)"
        " y = Add(beta, g)",
    ),
}
OTHER = {
    "quick GELU": "k = Mul(x, almost2) s = Sigmoid(k) y = Mul(x, s)",
    "GELU of another root": "d = Div(x, two) e = Erf(d) s = Add(one, e) p = Mul(x, s)"
    " y = Mul(p, half)",
    "softmax of tokens": "e = Exp(x) n = ReduceSum(e, middle) y = Div(e, n)",
    "LayerNorm with ε outside the root": f"{CENTRED} r = Sqrt(v) a = Add(r, small) y = Div(d, a)",
    "a gate by the mean": "m = ReduceMean(x, last) d = Div(m, root2) e = Erf(d) s = Add(one, e)"
    " p = Mul(x, s) y = Mul(p, half)",
    "RMSNorm": "q = Mul(x, x) v = ReduceMean(q, last) a = Add(v, small) r = Sqrt(a) y = Div(x, r)",
}


def model(body, path):
    numbers = {
        "half": 0.5,
        "one": 1,
        "two": 2,
        "three": 3,
        "minus": -0.5,
        "small": 1e-5,
        "tiny": 1e-12,
    }
    numbers |= {"cubic": 0.044715, "root2": 2**0.5, "root": (2 / np.pi) ** 0.5, "almost2": 1.702}
    stored = [f"float {name} = {{{value}}}" for name, value in numbers.items()]
    stored += ["int64[1] last = {-1}", "int64[1] middle = {1}"]
    for name, start in (("gamma", 0.5), ("beta", -1)):
        values = ", ".join(f"{start + i / 7:.6f}" for i in range(8))
        stored.append(f"float[8] {name} = {{{values}}}")
    onnx.save(
        parser.parse_model(
            '<ir_version: 9, opset_import: ["": 20]> g (float[1, 5, 8] x) => (float[1, 5, 8] y) '
            f"<{', '.join(stored)}> {{ {body} }}"
        ),
        path,
    )
    return path


def fused(body, folder):
    """The operators after fusion, and outputs before and after."""
    path = model(body, folder / "a.onnx")
    graph = ir.load(path)
    fuse(graph, {**shapes(path, X), "x": X.shape})
    ir.save(graph, folder / "b.onnx")
    runs = [Runner(folder / name)(X)[0] for name in ("a.onnx", "b.onnx")]
    return [node.op_type for node in graph.graph], *runs


@pytest.mark.parametrize("what", SPELLED)
def test_it_becomes_one_operator(what, tmp_path):
    op, body = SPELLED[what]
    ops, want, got = fused(body, tmp_path)
    assert ops == [op]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", OTHER)
def test_what_only_looks_like_it_stays(what, tmp_path):
    ops, want, got = fused(OTHER[what], tmp_path)
    assert not {"Gelu", "Softmax", "LayerNormalization"} & set(ops)
    np.testing.assert_array_equal(got, want)


def test_two_norms_of_one_mean_keep_their_own_epsilon(tmp_path):
    body = f"""{CENTRED} a = Add(v, tiny) r = Sqrt(a) n = Div(d, r)
        b = Add(v, small) s = Sqrt(b) o = Div(d, s) y = Add(n, o)"""
    path = model(body, tmp_path / "a.onnx")
    graph = ir.load(path)
    fuse(graph, {**shapes(path, X), "x": X.shape})
    norms = [node for node in graph.graph if node.op_type == "LayerNormalization"]
    epsilons = sorted(node.attributes.get_float("epsilon") for node in norms)
    np.testing.assert_allclose(epsilons, [1e-12, 1e-5], rtol=1e-6)


def test_a_mask_of_zeros_is_skipped(tmp_path):
    body = """
        zeros = Constant <value = float[5, 8] {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,
            0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}> ()
        y0 = Add(x, zeros)
        y = Softmax(y0)
    """
    path = model(body, tmp_path / "a.onnx")
    graph = ir.load(path)
    LiftConstantsToInitializersPass(lift_all_constants=True)(graph)
    fuse(graph, {**shapes(path, X), "x": X.shape})
    assert [node.op_type for node in graph.graph] == ["Softmax"]

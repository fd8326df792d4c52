"""A float16 graph is finite and close to FP32, or it is refused: on graphs made to overflow."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.support import graphs
from tests.support.graphs import IMAGES, TOKENS, WIDTH
from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.graph.half import halve
from vitedge.graph.run import Runner
from vitedge.quant.half import notes

CLOSE_DB = 50.0
LARGE = """
    pixels = Cast <to = 1> (image)
    unit = Add(pixels, nothing)
    x0 = Reshape(unit, tokens)
    x = MatMul(x0, grow)
"""

MOMENTS = """
    m = ReduceMean(x, last)
    d = Sub(x, m)
    {square}
    v = ReduceMean(s, last)
    e = Add(v, epsilon)
    r = Sqrt(e)
"""
AFFINE = "g = Mul(n, gamma)\n h = Add(g, beta)\n y = MatMul(h, w)"
SPELLED_OUT = {
    "Pow and Div": MOMENTS.format(square="s = Pow(d, two)") + "n = Div(d, r)\n" + AFFINE,
    "Mul and Reciprocal": MOMENTS.format(square="s = Mul(d, d)")
    + "i = Reciprocal(r)\n n = Mul(d, i)\n"
    + AFFINE,
    "no gamma": MOMENTS.format(square="s = Pow(d, two)") + "n = Div(d, r)\n y = MatMul(n, w)",
}
UNFUSED = {
    "RMSNorm": """
        s = Pow(x, two)
        v = ReduceMean(s, last)
        e = Add(v, epsilon)
        r = Sqrt(e)
        n = Div(x, r)
        y = MatMul(n, w)
    """,
    "another axis": MOMENTS.format(square="s = Mul(d, d)").replace("last", "tokens_axis")
    + "n = Div(d, r)\n y = MatMul(n, w)",
}


def build(folder, body, **changed):
    """A graph of `body`, from `x` (1, tokens, width), in 0..255, to `y`."""
    rng = np.random.default_rng(0)
    constants = {
        "nothing": np.float32(0),
        "grow": np.diag(rng.uniform(5, 20, WIDTH)),
        "last": np.array([-1]),
        "tokens_axis": np.array([1]),
        "two": np.float32(2),
        "epsilon": np.float32(1e-6),
        "small": np.float32(1 / 1024),
        "gamma": rng.normal(1, 0.1, WIDTH),
        "beta": rng.normal(size=WIDTH),
        "w": rng.normal(size=(WIDTH, WIDTH)),
    }
    return graphs.build(folder, body, LARGE, **{**constants, **changed})


def halved(path):
    folder = path.parent / "half"
    folder.mkdir()
    half = halve(path, path, folder, lambda: iter(IMAGES), len(IMAGES), "images", SILENT)
    return half, folder / "model.onnx"


def unguarded(path):
    """What the graph gives with everything in float16."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    model.graph.node[0].attribute[0].i = TensorProto.FLOAT16
    naive = path.with_name("naive.onnx")
    onnx.save(model, naive)
    return true_fp16(naive)


def true_fp16(path):
    """Its outputs with every operator computed in the types the graph states, by NumPy.

    ONNX Runtime's CPU computes in float32 what it has no float16 kernel for, and hides overflow.
    """
    run = ReferenceEvaluator(onnx.load(path))
    with np.errstate(all="ignore"):
        return np.concatenate([run.run(None, {"image": image})[0] for image in IMAGES])


def fp32(path):
    return np.concatenate([Runner(path)(image)[0] for image in IMAGES])


def ops(path):
    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def kept(half):
    return {operator.node: operator.why for operator in half.kept}


@pytest.mark.parametrize("style", SPELLED_OUT)
def test_a_layer_norm_that_is_spelled_out_is_fused_and_does_not_overflow(tmp_path, sqnr_db, style):
    path = build(tmp_path, SPELLED_OUT[style])
    half, fp16 = halved(path)
    assert half.largest > 2000
    assert not sqnr_db(fp32(path), unguarded(path)) > 20  # not finite, or garbage
    assert sqnr_db(fp32(path), fp32(fp16)) > CLOSE_DB
    assert half.sqnr_db > CLOSE_DB
    assert "LayerNormalization" in ops(fp16)
    assert not {"Pow", "Sqrt", "ReduceMean"} & set(ops(fp16))
    assert half.kept == ()
    assert half.layer_norm.startswith("1 fused, adding up in float32")


def test_a_layer_norm_whose_mean_is_read_elsewhere_is_fused_too(tmp_path):
    moments = MOMENTS.format(square="s = Pow(d, two)")
    body = f"{moments} n = Div(d, r)\n k = Mul(m, small)\n j = Add(n, k)\n y = MatMul(j, w)"
    half, fp16 = halved(build(tmp_path, body))
    assert half.layer_norm.startswith("1 fused")
    assert not {"Pow", "Sqrt"} & set(ops(fp16))


@pytest.mark.parametrize("style", UNFUSED)
def test_a_norm_that_is_no_layer_norm_is_kept_in_float32(tmp_path, sqnr_db, style):
    path = build(tmp_path, UNFUSED[style])
    half, fp16 = halved(path)
    assert not sqnr_db(fp32(path), unguarded(path)) > 20
    assert sqnr_db(fp32(path), true_fp16(fp16)) > CLOSE_DB
    squares = [why for node, why in kept(half).items() if node.endswith("_s")]
    assert len(squares) == 1 and "norm" in squares[0]
    assert "MatMul_y" not in kept(half)
    assert "kept in float32" in half.layer_norm


def test_what_is_spelled_out_computes_the_same_when_fused(tmp_path):
    path = build(tmp_path, SPELLED_OUT["Pow and Div"], epsilon=np.float32(40.0))
    _, fp16 = halved(path)
    want, got = fp32(path), fp32(fp16)
    assert np.abs(want - got).max() < 2e-3 * np.abs(want).max()


def test_activations_beyond_float16_keep_their_operators_in_float32(tmp_path, sqnr_db):
    body = """
        b = Mul(x, large)
        c = Add(b, x)
        n = LayerNormalization(c, gamma, beta)
        h = MatMul(n, w)
        k = Relu(h)
        y = MatMul(k, w)
    """
    path = build(tmp_path, body, large=np.float32(100))
    half, fp16 = halved(path)
    assert half.largest > 65504
    assert half.largest_node == "Add_c"
    assert set(kept(half)) == {"Mul_b", "Add_c", "LayerNormalization_n"}
    assert "reaches" in kept(half)["Add_c"]
    assert "kept in float32" in half.layer_norm
    assert sqnr_db(fp32(path), true_fp16(fp16)) > CLOSE_DB


@pytest.mark.parametrize(
    ("body", "changed", "node", "why"),
    [
        ("y = Add(x, c)", {"c": np.float32(-3e38)}, "Add_y", "'c' reaches 3e+38"),
        ("a = Add(x, c)\n y = Sqrt(a)", {"c": np.float32(1e-12)}, "Add_a", "too small"),
        ("y = ReduceMean(x, tokens_axis)", {}, "ReduceMean_y", "inside"),
        ("y = ReduceL2(x, last)", {}, "ReduceL2_y", "squares"),
        ('y = Gelu <approximate = "tanh"> (x)', {}, "Gelu_y", "inside"),
        ("u = Mul(x, c)\n y = Exp(u)", {"c": np.float32(0.0025)}, "Exp_y", "'y' reaches"),
    ],
)
def test_an_operator_is_kept_for_what_its_inputs_do_not_show(
    tmp_path, sqnr_db, body, changed, node, why
):
    path = build(tmp_path, body, **changed)
    half, fp16 = halved(path)
    assert why in kept(half)[node]
    assert sqnr_db(fp32(path), true_fp16(fp16)) > 40


NOTED = {
    "a layer scale": (
        ("s = Mul(x, tiny)\n a = Add(x, s)\n y = MatMul(a, w)", {"tiny": np.float32(1e-5)}),
        "1 against underflow ('Mul_s': its constant 'tiny', 1e-05, is too small for float16)",
    ),
    "an overflow": (
        ("b = Mul(x, large)\n y = LayerNormalization(b, gamma, beta)", {"large": np.float32(100)}),
        "2 against overflow ('Mul_b': 'b' reaches ",
    ),
    "Q/DQ of opset 17": (
        (
            "q = QuantizeLinear(x, s, z)\n d = DequantizeLinear(q, s, z)\n y = MatMul(d, w)",
            {"s": np.float32(50), "z": np.int8(0)},
        ),
        "2 for want of a narrower form ('QuantizeLinear_q': QuantizeLinear has no float16 form "
        "before opset 19)",
    ),
}


@pytest.mark.parametrize(("graph", "note"), NOTED.values(), ids=NOTED)
def test_a_note_says_why_operators_stay_in_float32(tmp_path, graph, note):
    body, changed = graph
    path = build(tmp_path, body, **changed)
    model = onnx.load(path)
    model.opset_import[0].version = 17
    onnx.save(model, path)
    half, _ = halved(path)
    assert f"{len(half.kept)} operators stay in float32: {note}" in notes(half)[0]


def test_softmax_and_gelu_are_float16(tmp_path, sqnr_db):
    path = build(tmp_path, "n = LayerNormalization(x, gamma, beta)\n g = Gelu(n)\n y = Softmax(g)")
    half, fp16 = halved(path)
    assert half.kept == ()
    assert sqnr_db(fp32(path), fp32(fp16)) > CLOSE_DB


def test_massive_values_that_drown_small_ones_are_kept_in_float32(tmp_path, sqnr_db):
    path = build(
        tmp_path, "u = Mul(x, small)\n a = Add(u, c)\n y = Sub(a, c)", c=np.float32(30_000)
    )
    half, fp16 = halved(path)
    assert half.limit < 30_000
    assert "Add_a" in kept(half)
    assert sqnr_db(fp32(path), true_fp16(fp16)) > CLOSE_DB


@pytest.mark.parametrize(
    ("last", "constants", "message"),
    [
        ("d = Sub(a, c)\n y = Mul(d, c)", {"tiny": 1e-4}, "drifts from FP32 from 'Sub_d' on"),
        (
            "d = Sub(a, b)\n y = Reciprocal(d)",
            {"tiny": 1e-6, "b": 99.999},
            "not finite from 'Reciprocal_y' on",
        ),
    ],
)
def test_what_no_choice_can_save_is_refused_and_named(tmp_path, last, constants, message):
    path = build(tmp_path, f"u = Mul(x, tiny)\n a = Add(u, c)\n {last}", c=100.0, **constants)
    with pytest.raises(InputError, match=message):
        halved(path)


def test_a_model_that_overflows_in_fp32_is_refused(tmp_path):
    path = build(tmp_path, "e = Exp(x)\n y = Mul(e, small)")
    with pytest.raises(InputError, match="activation 'e' is NaN or infinite"):
        halved(path)


def test_subgraphs_and_inputs_without_a_float16_form_keep_their_types(tmp_path, sqnr_db):
    branch = "then_graph () => (float t) { t = Mul(x, small) }"
    other = "else_graph () => (float f) { f = Add(x, small) }"
    path = build(
        tmp_path,
        f"""
        p = ReduceMax <keepdims = 0> (pixels)
        c = Cast <to = 9> (p)
        i = If <then_branch = {branch}, else_branch = {other}> (c)
        four = Reshape(i, square)
        z = Resize <mode = "nearest"> (four, , scales)
        back = Reshape(z, flat)
        y = MatMul(back, wide)
        """,
        small=np.float32(1 / 1024),
        square=np.array([1, 1, TOKENS, WIDTH]),
        scales=np.array([1.0, 1, 2, 2]),
        flat=np.array([1, 2 * TOKENS, 2 * WIDTH]),
        wide=np.random.default_rng(1).normal(size=(2 * WIDTH, 3)),
    )
    half, fp16 = halved(path)
    assert half.kept == ()
    stored = onnx.load(fp16).graph.initializer
    types = {tensor.name: tensor.data_type for tensor in stored}
    assert types["wide.half"] == TensorProto.FLOAT16
    assert types["scales"] == TensorProto.FLOAT
    assert sqnr_db(fp32(path), fp32(fp16)) > CLOSE_DB

"""Graphs and images no trained ViT has: each works as FP32 does, or says in a line why not."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.graphs import EVERYTHING, IMAGES, NORM, build, weights
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.errors import InputError
from vitedge.core.spec import Quantization
from vitedge.graph.run import Runner

RECIPES = [
    msgspec.structs.replace(recipe, num_samples=len(IMAGES))
    for recipe in catalog.calibrations().values()
    if recipe.name in ("fast", "default", "auto")
]
PAIR_SAFE = msgspec.structs.replace(EVERYTHING, activations="uint8", weights="pair_safe")
CLOSE_DB = 25.0


def zero(name, *where):
    values = weights()[name]
    for index in where:
        values[index] = 0
    return values


LINEAR = f"{NORM}\n p = MatMul(n, w)\n y = Add(p, b)"
GRAPHS = {
    "an activation's channel is always zero": (
        LINEAR,
        {"gamma": zero("gamma", 5), "beta": zero("beta", 5)},
    ),
    "no weight reads a channel": (LINEAR, {"w": zero("w", 5)}),
    "an output channel's weights are zero": (LINEAR, {"w": zero("w", np.s_[:, 5])}),
    "a weight is zero": (f"{NORM}\n p = MatMul(n, w)\n y = Add(p, x)", {"w": zero("w", np.s_[:])}),
    "an activation is always zero": (
        f"{NORM}\n z = Mul(n, nothing)\n p = MatMul(z, w)\n y = Add(p, x)",
        {"nothing": np.float32(0)},
    ),
    "Q is always zero": (
        """
        q = Mul(x, nothing)
        kt = Transpose <perm = [0, 2, 1]> (x)
        scores = MatMul(q, kt)
        p = Softmax(scores)
        v = MatMul(x, w_plain)
        y = MatMul(p, v)
        """,
        {"nothing": np.float32(0)},
    ),
    "two layers share one weight": (
        "p = MatMul(x, w_plain)\n o = MatMul(p, w_plain)\n y = Add(o, x)",
        {},
    ),
    "a weight is shared with its transpose": (
        "r = Reshape(x, rows)\n p = MatMul(r, w_plain)\n y = Gemm <transB = 1> (p, w_plain)",
        {},
    ),
    "an outlier meets a shared weight": (
        f"{NORM}\n p = MatMul(n, w)\n o = MatMul(x, w)\n y = Add(p, o)",
        {"gamma": weights()["b"], "beta": weights()["b"], "w": weights()["w_plain"]},
    ),
    "a layer's result is unused": (
        f"{NORM}\n p = MatMul(n, w)\n d = MatMul(n, w_dead)\n e = Relu(d)\n f = MatMul(e, w_v)"
        "\n y = Add(p, b)",
        {"w_dead": weights()["w"]},
    ),
    "values are a billionth": (
        "t = Mul(x, tiny)\n p = MatMul(t, w_plain)\n u = MatMul(p, w_small)\n y = Mul(u, huge)",
        {
            "tiny": np.float32(1e-9),
            "w_small": weights()["w_plain"] * np.float32(1e-10),
            "huge": np.float32(1e19),
        },
    ),
    "there is only a Conv": ("y = Conv(pixels, c_plain)", {"c_plain": weights()["c"][:, :3]}),
    "Convs and nothing else": (
        "h = Conv(pixels, c_grown, b_grown)\n r = Relu(h)\n y = Conv(r, c)",
        {},
    ),
}


def outputs(model, path, images):
    """What the graph says, every operator on its own: no kernel's 16-bit sums."""
    onnx.save(model, path)
    run = Runner(path, as_written=True)
    return [np.concatenate(values) for values in zip(*map(run, images), strict=True)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("target", [EVERYTHING, PAIR_SAFE], ids=lambda target: target.weights)
@pytest.mark.parametrize("what", GRAPHS)
def test_it_stays_close_to_fp32_where(what, target, recipe, tmp_path, sqnr_db):
    body, changed = GRAPHS[what]
    path = build(tmp_path, body, **changed)
    model, _ = ptq(path, IMAGES, recipe, target)
    (want,) = outputs(onnx.load(path), tmp_path / "fp32.onnx", IMAGES)
    (got,) = outputs(model, tmp_path / "int8.onnx", IMAGES)
    assert np.isfinite(got).all()
    assert sqnr_db(want, got) >= CLOSE_DB


def test_a_shared_weight_is_stored_once(tmp_path):
    body, changed = GRAPHS["two layers share one weight"]
    model, decisions = ptq(build(tmp_path, body, **changed), IMAGES, RECIPES[0], EVERYTHING)
    integers = [
        t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.dims
    ]
    assert [t.name for t in integers if len(t.dims) == 2] == ["w_plain.quantized"]
    assert sum(d.quantized for d in decisions) == 2
    assert "w_plain" not in {t.name for t in model.graph.initializer}


def test_unused_weights_do_not_reach_the_file(tmp_path):
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)")
    unused = onnx.load(path)
    unused.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(9, np.float32), "unused"))
    onnx.save(unused, path)
    model, _ = ptq(path, IMAGES, RECIPES[0], EVERYTHING)
    assert "unused" not in {tensor.name for tensor in model.graph.initializer}


def test_a_norm_that_the_output_shows_too_is_left_as_it_is(tmp_path, sqnr_db):
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)")
    shown = onnx.load(path)
    shown.graph.output.append(helper.make_empty_tensor_value_info("n"))
    onnx.save(shown, path)
    model, _ = ptq(path, IMAGES, RECIPES[0], EVERYTHING)
    want, got = (outputs(m, tmp_path / "run.onnx", IMAGES) for m in (shown, model))
    np.testing.assert_array_equal(got[1], want[1])
    assert np.isfinite(got[0]).all()


@pytest.mark.parametrize("value", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_images_all_alike_give_a_model_that_runs(recipe, value, tmp_path):
    path = build(tmp_path, f"{NORM}\n p = MatMul(n, w)\n g = Gelu(p)\n y = MatMul(g, w_plain)")
    images = [np.full((1, 8, 8, 3), value, np.uint8)] * 4
    model, _ = ptq(path, images, recipe, EVERYTHING)
    (got,) = outputs(model, tmp_path / "int8.onnx", IMAGES)
    assert np.isfinite(got).all()


MATMULS = Quantization(activations="uint8", weights="full", attention=(), operators=("MatMul",))


@pytest.mark.parametrize(
    ("body", "operators"),
    [
        ("y = Gelu(x)", "none"),
        ("h = Conv(pixels, c_grown)\n y = Relu(h)", "Conv, which this target runs in float"),
    ],
    ids=["no layer", "only Conv"],
)
def test_where_the_target_has_no_kernel_for_any_layer_that_is_said(body, operators, tmp_path):
    path = build(tmp_path, body)
    with pytest.raises(InputError, match=f"with weights are {operators}$") as caught:
        ptq(path, IMAGES, RECIPES[0], MATMULS)
    assert "`precision='fp32'`" in caught.value.fix


def test_an_activation_that_breaks_on_one_image_is_named_with_its_layer(tmp_path):
    body = "s = Sub(x, limit)\n r = Sqrt(s)\n p = MatMul(r, w_plain)\n y = Add(p, b)"
    path = build(tmp_path, body, limit=np.float32(0.5))
    bright, dark = (np.full((1, 8, 8, 3), value, np.uint8) for value in (255, 0))
    assert ptq(path, [bright] * 3, RECIPES[0], EVERYTHING)
    with pytest.raises(InputError, match="'r', the output of Sqrt_r, is NaN") as caught:
        ptq(path, [bright, bright, dark], RECIPES[0], EVERYTHING)
    assert caught.value.fix

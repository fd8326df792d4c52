"""Outlier channels are scaled away wherever a graph's structure allows it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from tests.outliers import write_digits
from tests.ptq import ptq
from vitedge import catalog
from vitedge.errors import InputError
from vitedge.graph.equalize import Equalized, equalize
from vitedge.graph.moments import tapped

OUTLIER = 1000.0
"""Channel 1 of every source is so many times larger; what reads it undoes that."""
TOKENS, WIDTH, HEADS = 16, 12, 2
HEAD = WIDTH // HEADS

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
IMAGES = [np.random.default_rng(seed).integers(0, 256, (1, 8, 8, 3), np.uint8) for seed in range(4)]


def weights() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
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
        "scale": np.float32(HEAD**-0.5),
        "heads": np.array([1, TOKENS, HEADS, HEAD]),
        "split_heads": np.array([1, TOKENS, 3, HEADS, HEAD]),
        "tokens": np.array([1, TOKENS, WIDTH]),
        "rows": np.array([TOKENS, WIDTH]),
        "first": np.array([0]),
    }


def build(folder: Path, body: str, **changed: NDArray[Any]) -> Path:
    """A graph of `body`, from `x` (1, tokens, width) or `pixels` (1, 3, 8, 8) to `y`."""
    graph = parser.parse_graph(
        f"""
        g (uint8[1, 8, 8, 3] image) => (float y) {{
            raw = Cast <to = 1> (image)
            unit = Mul(raw, small)
            pixels = Transpose <perm = [0, 3, 1, 2]> (unit)
            x = Reshape(unit, tokens)
            {body}
        }}"""
    )
    del graph.output[0].type.tensor_type.shape.dim[:]
    graph.output[0].CopyFrom(helper.make_empty_tensor_value_info("y"))
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{node.output[0]}" if index else "cast"
    used = {name for node in graph.node for name in node.input}
    stored = {**weights(), "small": np.float32(1 / 64), **changed}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in stored.items()
        if name in used
    )
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def run(path: Path, images: list[NDArray[np.uint8]] = IMAGES) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image})[0] for image in images])


def equalized(path: Path) -> Equalized:
    return equalize(path, lambda: iter(IMAGES), len(IMAGES), lambda *step: None)


def spread(path: Path, name: str, axis: int) -> float:
    """How much larger the largest channel of a tensor is than the median one."""
    model = onnx.load(path, load_external_data=False)
    (values,) = tapped(model, path, [], [name])(IMAGES[0])
    peaks = np.abs(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)).max(axis=1)
    return float(peaks.max() / np.median(peaks))


def pairs(made: Equalized) -> set[tuple[str, str]]:
    return {(source, user) for p in made.pairs for source in p.sources for user in p.users}


PLAIN: dict[str, tuple[str, str, int, set[tuple[str, str]]]] = {
    "LayerNorm to MatMul": (
        f"{NORM}\n p = MatMul(n, w)\n y = Add(p, b)",
        "n",
        2,
        {("LayerNormalization_n", "MatMul_p")},
    ),
    "LayerNorm to Gemm": (
        f"{NORM}\n r = Reshape(n, rows)\n y = Gemm <transB = 1> (r, w_t, b)",
        "r",
        1,
        {("LayerNormalization_n", "Gemm_y")},
    ),
    "LayerNorm spelled out": (
        "u = Mul(x, gamma)\n n = Add(u, beta)\n y = MatMul(n, w)",
        "n",
        2,
        {("Mul_u", "MatMul_y")},
    ),
    "LayerNorm through a Transpose and a mean": (
        f"{NORM}\n t = Transpose <perm = [0, 2, 1]> (n)\n m = ReduceMean <keepdims = 0> (t, last)"
        "\n y = Gemm(m, w, b)",
        "m",
        1,
        {("LayerNormalization_n", "Gemm_y")},
    ),
    "Linear, ReLU, Linear": (
        "h = MatMul(x, w_grown)\n h2 = Add(b_grown, h)\n r = Relu(h2)\n y = MatMul(r, w)",
        "r",
        2,
        {("MatMul_h", "MatMul_y")},
    ),
    "Conv, ReLU, Conv": (
        "h = Conv(pixels, c_grown, b_grown)\n r = Relu(h)\n y = Conv(r, c)",
        "r",
        1,
        {("Conv_h", "Conv_y")},
    ),
    "Conv, pool, grouped Conv": (
        "h = Conv(pixels, c_grown, b_grown)\n r = MaxPool <kernel_shape = [2, 2]> (h)"
        "\n y = Conv <group = 2> (r, c_groups)",
        "r",
        1,
        {("Conv_h", "Conv_y")},
    ),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_an_outlier_channel_is_scaled_away_exactly(kind: str, tmp_path: Path) -> None:
    body, tensor, axis, expected = PLAIN[kind]
    path = build(tmp_path, body, last=np.array([2]))
    made = equalized(path)
    assert pairs(made) == expected
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-4, atol=1e-3)
    assert made.max_rel_error <= 1e-5
    assert spread(path, tensor, axis) > 100
    assert spread(made.path, tensor, axis) < 4


@pytest.mark.parametrize("body", [FUSED, SPLIT], ids=["fused", "split"])
def test_attention_is_equalized_at_its_three_places(body: str, tmp_path: Path) -> None:
    path = build(tmp_path, body)
    made = equalized(path)
    by_user = {user: set(p.sources) for p in made.pairs for user in p.users}
    q, k, v, readers = ("MatMul_q0", "MatMul_k0", "MatMul_v0", ("MatMul_q0", "MatMul_v0"))
    if body is FUSED:
        q, k, v, readers = ("MatMul_product",) * 3 + (("MatMul_product",),)
    for reader in readers:
        assert by_user[reader] == {"LayerNormalization_n"}
    assert by_user["MatMul_projected"] == {v}
    assert by_user["MatMul_scores"] == {q, k}
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-4, atol=1e-3)
    for tensor, axis in (("n", 2), ("merged", 2)):
        assert spread(made.path, tensor, axis) < 4 < 100 < spread(path, tensor, axis)


def test_linears_that_share_a_norm_undo_the_same_scales(tmp_path: Path) -> None:
    made = equalized(build(tmp_path, SPLIT))
    (pair,) = [p for p in made.pairs if p.sources == ("LayerNormalization_n",)]
    assert set(pair.users) == {"MatMul_q0", "MatMul_k0", "MatMul_v0"}


UNTOUCHED = {
    "a residual reads the norm": f"{NORM}\n p = MatMul(n, w)\n y = Add(p, n)",
    "a GELU lies between": f"{NORM}\n g = Gelu(n)\n y = MatMul(g, w)",
    "two layers share one weight": f"{NORM}\n p = MatMul(n, w)\n o = MatMul(p, w)\n y = Gelu(o)",
    "it multiplies another activation": f"{NORM}\n t = Mul(n, x)\n y = MatMul(t, w)",
    "one consumer is no linear layer": (
        f"{NORM}\n p = MatMul(n, w)\n e = Sigmoid(n)\n y = Add(p, e)"
    ),
    "heads and channels are mixed up": (
        f"{NORM}\n t = Transpose <perm = [0, 2, 1]> (n)\n r = Reshape(t, tokens)\n y = MatMul(r, w)"
    ),
    "there is no pair": "h = Gelu(x)\n y = MatMul(h, w)",
}


@pytest.mark.parametrize("why", UNTOUCHED)
def test_nothing_is_scaled_where(why: str, tmp_path: Path) -> None:
    path = build(tmp_path, UNTOUCHED[why])
    made = equalized(path)
    assert made.pairs == ()
    np.testing.assert_array_equal(run(made.path), run(path))


def test_what_the_output_shows_is_never_scaled(tmp_path: Path) -> None:
    path = build(tmp_path, "y = LayerNormalization(x, gamma, beta)\n p = MatMul(y, w)")
    np.testing.assert_array_equal(run(equalized(path).path), run(path))


def test_a_shared_bias_is_copied_not_scaled_for_both(tmp_path: Path) -> None:
    body = f"{NORM}\n p = MatMul(n, w)\n q = Add(p, beta)\n y = Gelu(q)"
    path = build(tmp_path, body)
    made = equalized(path)
    assert pairs(made) == {("LayerNormalization_n", "MatMul_p")}
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-4, atol=1e-2)


def test_a_dead_channel_keeps_its_scale(tmp_path: Path) -> None:
    gamma, beta = weights()["gamma"], weights()["beta"]
    gamma[5] = beta[5] = 0
    w = weights()["w"]
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", gamma=gamma, beta=beta)
    made = equalized(path)
    graph = onnx.load(made.path).graph
    matmul = next(node for node in graph.node if node.op_type == "MatMul")
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    np.testing.assert_array_equal(stored[matmul.input[1]][5], w[5])
    assert all(np.isfinite(value).all() for value in stored.values())
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("strength", [1e-6, 1e6, 1e12])
def test_any_strength_is_scaled_away(strength: float, tmp_path: Path) -> None:
    gamma, beta, w = (weights()[name] for name in ("gamma", "beta", "w"))
    for vector in (gamma, beta):
        vector[3] *= strength
    w[3] /= strength
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", gamma=gamma, beta=beta, w=w)
    made = equalized(path)
    assert spread(made.path, "n", 2) < 4
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-3, atol=1e-3)


def test_activations_that_are_not_finite_are_named(tmp_path: Path) -> None:
    broken = weights()["gamma"] * np.float32(np.inf)
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", gamma=broken)
    with pytest.raises(InputError, match="'n' is NaN or infinite"):
        equalized(path)


def test_a_graph_that_magnifies_rounding_is_refused_by_the_place(tmp_path: Path) -> None:
    body = (
        f"{NORM}\n p = MatMul(n, w)\n d = Sub(p, p0)\n m = Mul(d, huge)\n s = Sin(m)\n y = Tanh(s)"
    )
    probe = build(tmp_path, body.replace("Sub(p, p0)", "Identity(p)"), huge=np.float32(1))
    (p0,) = tapped(onnx.load(probe), probe, [], ["p"])(IMAGES[0])
    path = build(tmp_path, body, p0=p0 * np.float32(1.0001), huge=np.float32(1e7))
    with pytest.raises(InputError, match=r"equalizing changed .* from Tanh_y on") as caught:
        equalized(path)
    assert "equalize = false" in caught.value.fix


def test_the_original_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = build(tmp_path, FUSED)
    before = path.read_bytes()
    equalized(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("tapped*"))


@pytest.fixture(scope="module")
def outlier_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits` with 5% of its channels a thousand times larger."""
    from vitedge.graph.export import export
    from vitedge.models.sources import Request, resolve

    folder = tmp_path_factory.mktemp("outliers")
    file = write_digits(folder / "weights.safetensors", "all", 1000, seed=7)
    return export(resolve(Request("digits", weights=file)), folder, "dynamic", 20).path


def test_a_trained_model_with_outliers_quantizes_as_well_as_one_without(
    outlier_graph: Path,
    digits_graph: Callable[..., Any],
    calibration_batches: Callable[..., Any],
    held_out: Any,
    sqnr_db: Callable[..., float],
    tmp_path: Path,
) -> None:
    recipe = msgspec.structs.replace(catalog.calibrations()["default"], num_samples=64)
    target = catalog.targets()["onnxruntime-cpu"].quantization
    images = calibration_batches(64, 16)

    def noise(fp32: Path, name: str) -> float:
        model, _ = ptq(fp32, images, recipe, target)
        onnx.save(model, tmp_path / name)
        return sqnr_db(want, run(tmp_path / name, [held_out.images]))

    want = run(digits_graph("dynamic").path, [held_out.images])
    clean = noise(digits_graph("dynamic").path, "clean.onnx")
    ruined = noise(outlier_graph, "ruined.onnx")
    made = equalize(outlier_graph, lambda: iter(images), 64, lambda *step: None)
    mended = noise(made.path, "mended.onnx")
    assert ruined < clean - 20
    assert mended > clean - 1


def types(model: ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer}


def test_only_float32_constants_are_written(outlier_graph: Path) -> None:
    made = onnx.load(outlier_graph.with_name("equalized.onnx"))
    assert types(made) <= {TensorProto.FLOAT, TensorProto.INT64}

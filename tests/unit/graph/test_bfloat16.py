"""Floats rounded to bfloat16: where a CPU that computes in it rounds, and how close that stays."""

from collections import Counter

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from onnx import TensorProto

from tests.support.graphs import IMAGES, WIDTH, build, run
from tests.support.machine import HERE
from vitedge.core.errors import InputError
from vitedge.graph.bfloat16 import closeness, first_drift, write_rounded
from vitedge.graph.half import EXACT_DB
from vitedge.graph.run import Runner, tapped
from vitedge.quant import bfloat16
from vitedge.quant.bfloat16 import INT8_LOSS_DB, SQNR_LIMIT_DB, int8_rest

LAYER = """
    h = MatMul(x, w_any)
    biased = Add(h, bias)
    y = Gelu(biased)
"""
CANCELLED = """
    h = MatMul(x, w_any)
    large = MatMul(x, w_large)
    far = Add(h, large)
    near = Sub(far, large)
    y = MatMul(near, w_any)
"""


def drawn(seed, *size):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


W = drawn(0, WIDTH, WIDTH)


def narrow(array):
    return torch.tensor(array).bfloat16().float()


def level_db(want, got):
    return 10 * np.log10(np.square(want).sum() / np.square(want - got).sum())


def test_a_product_and_what_follows_it_are_rounded_once_and_a_bias_is_not(tmp_path):
    bias = drawn(1, WIDTH)
    path = build(tmp_path, LAYER, w_any=W, bias=bias)
    (x,) = tapped(path, ["x"])(IMAGES[0])
    product = narrow(x) @ narrow(W) + torch.tensor(bias)
    want = narrow(torch.nn.functional.gelu(product).numpy()).numpy()
    (got,) = Runner(write_rounded(path))(IMAGES[0])
    np.testing.assert_array_equal(got, narrow(got).numpy())
    np.testing.assert_allclose(got, want, rtol=2**-7, atol=1e-6)  # sums end beside a tie
    assert (got == want).mean() > 0.95


def test_what_is_rounded_is_written_beside_the_graph_that_stays(tmp_path):
    path = build(tmp_path, LAYER, w_any=W, bias=drawn(1, WIDTH))
    before = path.read_bytes()
    rounded = write_rounded(path)
    assert path.read_bytes() == before
    assert rounded == tmp_path / "rounded.onnx"
    level = closeness(path, path, rounded, iter(IMAGES), [""])
    assert level.output == "y" and level.before_db == EXACT_DB
    assert level.rounded_db == pytest.approx(level_db(run(path), run(rounded)), abs=0.01)
    assert 45 < level.rounded_db < 60


def test_the_first_node_that_drifts_is_named(tmp_path):
    path = build(tmp_path, CANCELLED, w_any=W, w_large=300 * drawn(2, WIDTH, WIDTH))
    rounded = write_rounded(path)
    assert closeness(path, path, rounded, iter(IMAGES), [""]).rounded_db < 20
    assert first_drift(path, rounded, IMAGES[0], 30) == "Sub_near"


def test_what_drifts_stays_in_float32_where_the_graph_says_the_types(tmp_path):
    path = build(tmp_path, CANCELLED, w_any=W, w_large=300 * drawn(2, WIDTH, WIDTH))
    folder = tmp_path / "narrow"
    folder.mkdir()
    made = bfloat16._in_graph(path, folder, bfloat16._Images(IMAGES, "crops", [""]))
    kept = {operator.node: operator.cause for operator in made.bf16.kept}
    assert kept == dict.fromkeys(["MatMul_large", "Add_far", "Sub_near"], "drift")
    assert made.bf16.sqnr_db > 30
    graph = onnx.load(made.deployed).graph
    types = Counter(tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2)
    assert types == {TensorProto.BFLOAT16: 1, TensorProto.FLOAT: 1}  # w_any, w_large
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_what_drifts_is_refused_where_a_runtime_rounds_all(tmp_path):
    path = build(tmp_path, CANCELLED, w_any=W, w_large=300 * drawn(2, WIDTH, WIDTH))
    with pytest.raises(InputError, match="drifts from FP32 from 'Sub_near' on") as caught:
        bfloat16._by_option(path, bfloat16._Images(IMAGES, "crops", [""]))
    assert "for all floats or none" in caught.value.what


def test_what_is_no_number_once_rounded_is_refused(tmp_path):
    """float32's lowest becomes -inf, and 0 of it NaN."""
    lowest = np.full(WIDTH, np.finfo(np.float32).min)
    path = build(
        tmp_path,
        "m = Mul(x, zero)\n n = Add(m, lowest)\n s = Softmax(n)\n y = MatMul(s, w_any)",
        w_any=W,
        lowest=lowest,
        zero=np.float32(0),
    )
    with pytest.raises(InputError, match=r"keeps -200\.0 dB of 30"):
        bfloat16._by_option(path, bfloat16._Images(IMAGES, "crops", [""]))


def test_stored_weights_of_a_float_product_are_rounded(tmp_path):
    stored = np.random.default_rng(5).integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8)
    body = "w_wide = DequantizeLinear(stored, s, z)\n y = MatMul(x, w_wide)"
    path = build(tmp_path, body, stored=stored, s=np.float32(0.0123), z=np.int8(0))
    (got,) = Runner(write_rounded(path))(IMAGES[0])
    (x,) = tapped(path, ["x"])(IMAGES[0])
    want = narrow((narrow(x) @ narrow(stored.astype(np.float32) * np.float32(0.0123))).numpy())
    np.testing.assert_allclose(got, want.numpy(), rtol=2**-7, atol=1e-6)
    assert (got == want.numpy()).mean() > 0.95


@pytest.mark.skipif(
    "avx512f" not in (HERE.isa or ()), reason="OpenVINO computes in BF16 from AVX512 on"
)
def test_openvino_rounds_where_this_says(digits_graph, held_out):
    path, images = digits_graph(1).path, held_out.images[:16]
    core = ov.Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16
    rounded, exact = Runner(write_rounded(path)), Runner(path)
    want, got, simulated = (
        np.concatenate([run(image[None]) for image in images])
        for run in (lambda x: exact(x)[0], lambda x: compiled(x)[0], lambda x: rounded(x)[0])
    )
    assert level_db(want, simulated) == pytest.approx(level_db(want, got), abs=3)
    assert level_db(want, got) > 35


@pytest.mark.parametrize(
    ("noise", "large", "computed", "why"),
    [
        (1e-4, 0, True, "BF16 leaves 30 dB"),
        (1e-1, 10, True, "it costs no more than 1 dB"),
        (1e-4, 30, False, "it costs more, and leaves less"),
    ],
)
def test_int8_has_a_bf16_rest_where_that_costs_little_or_leaves_much(
    tmp_path, noise, large, computed, why
):
    fp32, int8 = tmp_path / "fp32", tmp_path / "int8"
    fp32.mkdir(), int8.mkdir()
    weights = {"w_large": large * drawn(2, WIDTH, WIDTH)}
    before = build(fp32, CANCELLED, w_any=W, **weights)
    path = build(int8, CANCELLED, w_any=W + noise * drawn(3, WIDTH, WIDTH), **weights)
    simulated, record = int8_rest(path, before, IMAGES, "crops", [""])
    lost_db = record.fp32_rest_db - record.sqnr_db
    assert (record.source, record.images, record.output) == ("crops", len(IMAGES), "y")
    assert record.computed == computed, (why, lost_db, record.sqnr_db)
    assert computed == (lost_db <= INT8_LOSS_DB or record.sqnr_db >= SQNR_LIMIT_DB)
    if record.computed:
        assert simulated == int8 / "rounded.onnx" and not record.why
    else:
        assert simulated == path
        assert f"keep {record.sqnr_db:.1f} dB of {record.fp32_rest_db:.1f}" in record.why

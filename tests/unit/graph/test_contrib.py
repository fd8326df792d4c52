"""ONNX Runtime's own operators: where they take the place of ONNX's, and that nothing changes."""

from collections import Counter

import msgspec
import numpy as np
import onnx
import pytest

from tests.support.graphs import EVERYTHING, FUSED, IMAGES, NORM, SPLIT, TOKENS, build, run
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.graph.contrib import rewrite

FAST = msgspec.structs.replace(catalog.calibrations()["fast"], num_samples=4)
LINEARS = msgspec.structs.replace(EVERYTHING, attention=(), operators=("MatMul",))
MASKED = FUSED.replace(
    "probabilities = Softmax(scores)", "m = Add(scores, mask)\n probabilities = Softmax(m)"
)
SCALED_AFTER = FUSED.replace(
    "scores = MatMul(scaled, kt)", "raw_scores = MatMul(q, kt)\n scores = Mul(raw_scores, scale)"
).replace("scaled = Mul(q, scale)", "")
READ_TWICE = FUSED.replace(
    "y = Add(projected, x)",
    "seen = ReduceSum(probabilities, axes)\n z = Add(projected, x)\n y = Add(z, seen)",
)


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    "body",
    [FUSED, SPLIT, SCALED_AFTER],
    ids=["one Linear", "a Linear each", "scores scaled"],
)
def test_an_attention_is_one_operator_and_each_operand_a_linear(tmp_path, body):
    plain, path = build(tmp_path, body), tmp_path / "own.onnx"
    assert rewrite(plain, path)
    after = kinds(path)
    assert after["MultiHeadAttention"] == 1 and after["Softmax"] == 0
    assert after["Split"] == after["Slice"] == 0
    assert after["MatMul"] == 4 and after["Add"] == 1  # the sum; biases are the attention's
    np.testing.assert_allclose(run(path), run(plain), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "body", [MASKED, READ_TWICE], ids=["masked", "its probabilities are read twice"]
)
def test_an_attention_that_does_more_stays_as_it_is(tmp_path, body):
    mask = np.zeros((1, 1, TOKENS, TOKENS), np.float32)
    plain = build(tmp_path, body, mask=mask, axes=np.array([0, 1, 2, 3]))
    assert not rewrite(plain, tmp_path / "own.onnx")
    assert not (tmp_path / "own.onnx").exists()


def test_a_linear_that_something_else_reads_is_computed_once(tmp_path):
    body = FUSED.replace(
        "y = Add(projected, x)", "z = Add(projected, x)\n s = ReduceSum(qkv, axes)"
    )
    plain = build(tmp_path, f"{body}\n y = Add(z, s)", axes=np.array([0, 1, 2]))
    path = tmp_path / "own.onnx"
    assert rewrite(plain, path)
    after = kinds(path)
    assert (after["MultiHeadAttention"], after["MatMul"], after["Slice"]) == (1, 2, 3)


def test_an_int8_product_takes_its_bias_in(tmp_path):
    body = f"{NORM}\n p = MatMul(n, w)\n y = Add(p, b)"
    model, _ = ptq(build(tmp_path, body), IMAGES, FAST, LINEARS)
    plain, path = tmp_path / "int8.onnx", tmp_path / "own.onnx"
    onnx.save(model, plain)
    assert rewrite(plain, path)
    after = kinds(path)
    assert after["MatMulIntegerToFloat"] == 1 and after["Add"] == after["DequantizeLinear"] == 0
    np.testing.assert_allclose(run(path), run(plain), rtol=1e-4, atol=1e-5)


def test_digits_in_int8_are_right_in_both_forms(
    digits_graph, calibration_batches, held_out, tmp_path
):
    target = catalog.targets()["onnxruntime-cpu"].quantization
    model, layers = ptq(digits_graph(1).path, calibration_batches(32, 1), FAST, target)
    plain, path = tmp_path / "int8.onnx", tmp_path / "own.onnx"
    onnx.save(model, plain)
    assert rewrite(plain, path)
    after = kinds(path)
    linears = sum(layer.quantized for layer in layers) + 2 * 4  # Q, K and V were one
    assert (after["MatMulIntegerToFloat"], after["MultiHeadAttention"]) == (linears, 4)
    images = [image[None] for image in held_out.images[:64]]
    assert (run(path, images).argmax(1) == run(plain, images).argmax(1)).mean() > 0.98

"""Which channels are free is read off a graph's structure; any scale of those changes nothing."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.support.graphs import FUSED, IMAGES, NORM, PAIRS, SPLIT, build, run
from vitedge.graph import equalize
from vitedge.graph.run import shapes
from vitedge.graph.trace import find


def channels_of(path):
    return find(ir.load(path), shapes(path, IMAGES[0]))


def pairs(channels):
    """Whose free channels are undone by whom."""
    starts = sorted(channels.sources)
    free = set()
    reads = [(x.node.name, x.weight_ids) for x in channels.linears]
    reads += [(x.node.name, ids) for x in channels.products for ids in x.pairs]
    for user, ids in reads:
        for channel in np.unique(ids[channels.root[ids] != 0]).tolist():
            start = starts[int(np.searchsorted(starts, channel, side="right")) - 1]
            free.add((channels.sources[start].name, user))
    return free


def rescaled_at_random(path, channels, seed):
    free = np.exp(np.random.default_rng(seed).normal(0, 2, len(channels.root)))
    free[0] = 1
    scale = free[channels.root] ** channels.sign
    equalize.rescale(path, channels, scale, path.with_name("rescaled.onnx"))
    return path.with_name("rescaled.onnx")


FREE = {
    **{kind: (body, {(source, user)}) for kind, (body, source, user, *_) in PAIRS.items()},
    "LayerNorm through a Transpose and a mean": (
        f"{NORM}\n t = Transpose <perm = [0, 2, 1]> (n)\n m = ReduceMean <keepdims = 0> (t, last)"
        "\n y = Gemm(m, w, b)",
        {("LayerNormalization_n", "Gemm_y")},
    ),
    "a gate multiplies it": (
        f"{NORM}\n t = Mul(n, x)\n y = MatMul(t, w)",
        {("LayerNormalization_n", "MatMul_y")},
    ),
    "a residual joins Convs": (
        "h = Conv(pixels, c_grown, b_grown)\n k = Conv <group = 12, pads = [1, 1, 1, 1]> "
        "(h, c_depthwise)\n s = Add(h, k)\n r = Relu(s)\n y = Conv(r, c)",
        {("Conv_h", "Conv_k"), ("Conv_h", "Conv_y")},
    ),
    "squeeze-and-excite": (
        "h = Conv(pixels, c_grown, b_grown)\n m = GlobalAveragePool(h)\n e = Conv(m, c_mixing)"
        "\n g = Sigmoid(e)\n s = Mul(g, h)\n y = Conv(s, c)",
        {("Conv_h", "Conv_e"), ("Conv_h", "Conv_y")},
    ),
    "a BatchNorm undoes a sum's scales and takes its own": (
        "h = Conv(pixels, c_grown, b_grown)\n k = Conv <group = 12, pads = [1, 1, 1, 1]> "
        "(h, c_depthwise)\n s = Add(h, k)"
        "\n n = BatchNormalization(s, gamma, beta, mean, variance)\n y = Conv(n, c)",
        {("Conv_h", "Conv_k"), ("BatchNormalization_n", "Conv_y")},
    ),
    "attention, fused": (
        FUSED,
        {
            ("LayerNormalization_n", "MatMul_product"),
            ("MatMul_product", "MatMul_scores"),
            ("MatMul_product", "MatMul_projected"),
        },
    ),
    "attention, split": (
        SPLIT,
        {
            *(("LayerNormalization_n", f"MatMul_{x}") for x in ("q0", "k0", "v0")),
            *((f"MatMul_{x}", "MatMul_scores") for x in ("q0", "k0")),
            ("MatMul_v0", "MatMul_projected"),
        },
    ),
}


@pytest.mark.parametrize("kind", FREE)
def test_every_pair_is_found_and_any_scale_of_it_changes_nothing(kind, tmp_path):
    body, expected = FREE[kind]
    path = build(tmp_path, body, last=np.array([2]))
    channels = channels_of(path)
    assert pairs(channels) == expected
    want = run(path)
    for seed in range(3):
        got = run(rescaled_at_random(path, channels, seed))
        assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


def test_a_rescaled_source_is_really_scaled(tmp_path):
    path = build(tmp_path, SPLIT)
    channels = channels_of(path)
    stored = [
        {tensor.name for tensor in onnx.load(p).graph.initializer}
        for p in (path, rescaled_at_random(path, channels, 0))
    ]
    changed = stored[1] - stored[0]
    assert {name.split("/")[0] for name in changed} == {
        "LayerNormalization_n",
        *(f"MatMul_{x}" for x in ("q0", "k0", "v0", "projected")),
        "Add_v1",
    }


def test_linears_that_share_a_norm_undo_the_same_scales(tmp_path):
    channels = channels_of(build(tmp_path, SPLIT))
    roots = {x.node.name: channels.root[x.weight_ids] for x in channels.linears}
    by_user = {user: set(ids.ravel().tolist()) for user, ids in roots.items()}
    assert by_user["MatMul_q0"] == by_user["MatMul_k0"] == by_user["MatMul_v0"]
    assert not by_user["MatMul_q0"] & by_user["MatMul_projected"]


def test_in_attention_scores_q_and_k_are_scaled_against_each_other(tmp_path):
    channels = channels_of(build(tmp_path, SPLIT))
    (product,) = channels.products
    q, k = (ids.ravel() for ids in product.pairs)
    np.testing.assert_array_equal(channels.root[q], channels.root[k])
    np.testing.assert_array_equal(channels.sign[q], -channels.sign[k])


UNTOUCHED = {
    "a residual reads the norm": f"{NORM}\n p = MatMul(n, w)\n y = Add(p, n)",
    "a GELU lies between": f"{NORM}\n g = Gelu(n)\n y = MatMul(g, w)",
    "two layers share one weight": f"{NORM}\n p = MatMul(n, w)\n o = MatMul(p, w)\n y = Gelu(o)",
    "two activations with scales are multiplied": (
        f"{NORM}\n h = MatMul(x, w_grown)\n t = Mul(n, h)\n y = MatMul(t, w)"
    ),
    "one side of a sum has no scale": (
        "h = MatMul(x, w_grown)\n e = Sigmoid(x)\n s = Add(h, e)\n y = MatMul(s, w)"
    ),
    "a BatchNorm gives a vector an image": (
        "h = Conv(pixels, c_grown, b_grown)\n m = GlobalAveragePool(h)\n v = Flatten(m)"
        "\n n = BatchNormalization(v, gamma, beta, mean, variance)\n y = MatMul(n, w)"
    ),
    "one consumer is no linear layer": (
        f"{NORM}\n p = MatMul(n, w)\n e = Sigmoid(n)\n y = Add(p, e)"
    ),
    "heads and channels are mixed up": (
        f"{NORM}\n t = Transpose <perm = [0, 2, 1]> (n)\n r = Reshape(t, tokens)\n y = MatMul(r, w)"
    ),
    "the output shows it": "y = LayerNormalization(x, gamma, beta)\n p = MatMul(y, w)",
    "there is no pair": "h = Gelu(x)\n y = MatMul(h, w)",
}


@pytest.mark.parametrize("why", UNTOUCHED)
def test_nothing_is_free_where(why, tmp_path):
    path = build(tmp_path, UNTOUCHED[why])
    channels = channels_of(path)
    assert pairs(channels) == set()
    np.testing.assert_array_equal(run(rescaled_at_random(path, channels, 0)), run(path))


def test_a_shared_bias_is_copied_not_scaled_for_both(tmp_path):
    body = f"{NORM}\n p = MatMul(n, w)\n q = Add(p, beta)\n y = Gelu(q)"
    path = build(tmp_path, body)
    channels = channels_of(path)
    assert pairs(channels) == {("LayerNormalization_n", "MatMul_p")}
    want, got = run(path), run(rescaled_at_random(path, channels, 0))
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()

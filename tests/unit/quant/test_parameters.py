"""Outlier channels are scaled away at any strength, exactly, and ranges are as they are then."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.graphs import (
    EVERYTHING,
    FUSED,
    IMAGES,
    NORM,
    PAIRS,
    SPLIT,
    build,
    peaks,
    run,
    spread,
    weights,
)
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.graph.run import tapped
from vitedge.quant.observe import observe
from vitedge.quant.parameters import QuantizerSettings, fit

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fitted(path, equalize=0.5, target=EVERYTHING):
    recipe = msgspec.structs.replace(
        catalog.calibrations()["default"], equalize=equalize, num_samples=len(IMAGES)
    )
    observed = observe(path, iter(IMAGES), recipe, target, SILENT)
    return fit(observed, QuantizerSettings(equalize, "minmax", "minmax", 8), target)


def assert_same_function(path, made):
    """What is equalized computes what the file `path` does."""
    want = run(path)
    assert np.abs(run(made.path) - want).max() <= 1e-4 * np.abs(want).max()


def stored(made):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(made.path).graph.initializer}


def pairs(made):
    return {(source, user) for p in made.pairs for source in p.sources for user in p.users}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kind", PAIRS)
def test_an_outlier_channel_is_scaled_away_exactly(kind, strength, tmp_path):
    body, source, user, tensor, axis = PAIRS[kind]
    path = build(tmp_path, body)
    made = fitted(path, strength)
    assert pairs(made) == {(source, user)}
    assert_same_function(path, made)
    assert made.max_rel_error <= 1e-5
    assert spread(path, tensor, axis) > 100
    assert spread(made.path, tensor, axis) < 5


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("body", [FUSED, SPLIT], ids=["fused", "split"])
def test_attention_is_equalized_at_its_three_places(body, strength, tmp_path):
    path = build(tmp_path, body)
    made = fitted(path, strength)
    by_user = {user: set(p.sources) for p in made.pairs for user in p.users}
    q, k, v, readers = ("MatMul_q0", "MatMul_k0", "MatMul_v0", ("MatMul_q0", "MatMul_v0"))
    if body is FUSED:
        q, k, v, readers = ("MatMul_product",) * 3 + (("MatMul_product",),)
    for reader in readers:
        assert by_user[reader] == {"LayerNormalization_n"}
    assert by_user["MatMul_projected"] == {v}
    assert by_user["MatMul_scores"] == {q, k}
    assert_same_function(path, made)
    for tensor, axis in (("n", 2), ("merged", 2), ("scaled", 3)):
        assert spread(made.path, tensor, axis) < 4 < 100 < spread(path, tensor, axis)


def test_strength_one_makes_activations_flat_and_strength_zero_weights(tmp_path):
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)")
    flat = fitted(path, 1.0)
    assert spread(flat.path, "n", 2) < 1.5  # over one image of the four
    weight = np.abs(stored(fitted(path, 0.0))["MatMul_y/equalized_1"])
    look = tapped(path, ["n"])
    amax = np.max([np.abs(look(image)[0]).max(axis=(0, 1)) for image in IMAGES], axis=0)
    intake = (np.abs(weights()["w"]) * amax[:, None]).max(axis=0)  # each output's range
    rows = (weight / intake).max(axis=1)
    np.testing.assert_allclose(rows, rows[0], rtol=1e-5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_channels_end_up_as_they_would_without_any_outliers(strength, tmp_path):
    grown = weights()
    rng = np.random.default_rng(0)
    norm, q, v = (np.exp(rng.normal(0, 4, len(grown["b"]))).astype(np.float32) for _ in range(3))
    outliers = {
        "gamma": grown["gamma"] * norm,
        "beta": grown["beta"] * norm,
        "w_q": grown["w_q"] / norm[:, None] * q,
        "w_k": grown["w_k"] / norm[:, None] / q,
        "w_v": grown["w_v"] / norm[:, None] * v,
        "b_v": grown["b_v"] * v,
        "w_proj": grown["w_proj"] / v[:, None],
    }
    channels = []
    for name, changed in (("without", {}), ("with", outliers)):
        (tmp_path / name).mkdir()
        made = fitted(build(tmp_path / name, SPLIT, **changed), strength)
        tensors = ("n", 2), ("merged", 2), ("scaled", 3), ("kt", 2)
        shapes = [peaks(made.path, *tensor) for tensor in tensors]
        channels.append(np.concatenate([shape / shape.max() for shape in shapes]))
    np.testing.assert_allclose(channels[1], channels[0], rtol=1e-3)


def test_ranges_are_those_of_the_rescaled_graph(tmp_path):
    path = build(tmp_path, SPLIT)
    names = ["n", "merged", "scaled", "kt", "v", "probabilities"]
    for strength in (0.5, 1.0):
        made = fitted(path, strength)
        look = tapped(made.path, names)
        seen = np.max([[np.abs(value).max() for value in look(image)] for image in IMAGES], axis=0)
        for name, largest in zip(names, seen, strict=True):
            assert made.ranges[name].amax == pytest.approx(largest, rel=1e-4), name


def test_off_leaves_the_graph_alone(tmp_path):
    path = build(tmp_path, FUSED)
    made = fitted(path, "off")
    assert (made.path, made.pairs, made.max_rel_error) == (path, (), 0.0)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx"}


def test_where_nothing_is_free_the_graph_is_used_as_it_is(tmp_path):
    path = build(tmp_path, f"{NORM}\n p = MatMul(n, w)\n y = Add(p, n)")
    made = fitted(path)
    assert (made.path, made.pairs) == (path, ())


def test_layers_that_stay_in_float_are_not_rescaled(tmp_path):
    only = msgspec.structs.replace(EVERYTHING, attention=())
    made = fitted(build(tmp_path, SPLIT), target=only)
    assert "MatMul_scores" not in {user for _, user in pairs(made)}
    assert ("LayerNormalization_n", "MatMul_q0") in pairs(made)


def test_a_query_that_a_layer_reads_too_need_not_have_its_keys_quantized(tmp_path):
    body = f"""
        {NORM}
        k0 = MatMul(x, w_k)
        kt = Transpose <perm = [0, 2, 1]> (k0)
        scores = MatMul(n, kt)
        p = Softmax(scores)
        read = MatMul(n, w)
        y = MatMul(p, read)
    """
    path = build(tmp_path, body)
    made = fitted(path, target=msgspec.structs.replace(EVERYTHING, attention=()))
    assert_same_function(path, made)


def test_a_channel_that_is_always_zero_keeps_its_scale(tmp_path):
    gamma, beta, w = (weights()[name] for name in ("gamma", "beta", "w"))
    gamma[5] = beta[5] = 0
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", gamma=gamma, beta=beta)
    made = fitted(path)
    constants = stored(made)
    np.testing.assert_array_equal(constants["MatMul_y/equalized_1"][5], w[5])
    assert all(np.isfinite(value).all() for value in constants.values())
    assert_same_function(path, made)


def test_a_channel_that_no_weight_reads_keeps_its_scale(tmp_path):
    w = weights()["w"]
    w[5] = 0
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", w=w)
    made = fitted(path)
    np.testing.assert_allclose(peaks(made.path, "n", 2)[5], peaks(path, "n", 2)[5])
    assert_same_function(path, made)


@pytest.mark.parametrize("outlier", [1e-12, 1e-6, 1e6, 1e12])
def test_any_outlier_is_scaled_away(outlier, tmp_path):
    gamma, beta, w = (weights()[name] for name in ("gamma", "beta", "w"))
    for vector in (gamma, beta):
        vector[3] *= outlier
    w[3] /= outlier
    path = build(tmp_path, f"{NORM}\n y = MatMul(n, w)", gamma=gamma, beta=beta, w=w)
    made = fitted(path)
    assert spread(made.path, "n", 2) < 4
    np.testing.assert_allclose(run(made.path), run(path), rtol=1e-3, atol=1e-3)

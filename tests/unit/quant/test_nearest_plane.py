"""Rounding to the nearest plane: less error where inputs go together, and never out of bounds."""

from itertools import product

import numpy as np
import pytest

from vitedge.quant.nearest_plane import round_to_plane
from vitedge.quant.weights import PAIR_SUM_MAX, quantize_weight


def correlated(rows, groups, inputs, seed=0):
    """Rows (groups, rows, inputs) that a third as many causes explain, and some noise."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((groups, rows, max(1, inputs // 3)))
    mixing = rng.standard_normal((groups, causes.shape[2], inputs))
    noise = 0.1 * rng.standard_normal((groups, rows, inputs))
    return (causes @ mixing + noise + 0.5).astype(np.float32)


def weights(groups, inputs, channels, seed=1):
    return np.random.default_rng(seed).normal(size=(groups, inputs, channels)).astype(np.float32)


def nearest(columns, qmax, **options):
    parts = [quantize_weight(part, 1, "minmax", qmax=qmax, **options) for part in columns]
    return np.stack([part[0] for part in parts]), np.stack([part[1] for part in parts])


def error(columns, integers, scales, rows):
    off = columns - integers.astype(np.float64) * scales[:, None]
    return np.square(rows.astype(np.float64) @ off).sum()


@pytest.mark.parametrize(("qmax", "fp8"), [(127, False), (7, False), (448, True)])
@pytest.mark.parametrize(("groups", "inputs", "channels"), [(1, 300, 24), (32, 9, 1), (2, 18, 5)])
def test_errors_cancel_on_rows_that_were_not_seen(groups, inputs, channels, qmax, fp8):
    seen, unseen = np.split(correlated(16 * inputs, groups, inputs), 2, axis=1)
    columns = weights(groups, inputs, channels)
    plain, scales = nearest(columns, qmax, fp8=fp8)
    integers = round_to_plane(columns, scales, seen.transpose(0, 2, 1) @ seen, qmax, fp8=fp8)
    assert integers.dtype == plain.dtype and np.abs(integers.astype(int)).max() <= qmax
    before, after = (error(columns, i, scales, unseen) for i in (plain, integers))
    assert after < 0.4 * before


def test_inputs_that_have_nothing_in_common_are_rounded_to_the_nearest():
    columns = weights(1, 40, 6)
    plain, scales = nearest(columns, 127)
    moments = np.diag(np.linspace(1, 9, 40)).astype(np.float32)[None]
    np.testing.assert_array_equal(round_to_plane(columns, scales, moments, 127), plain)


def test_it_is_near_the_best_rounding_there_is():
    rows = correlated(64, 1, 4)
    moments = rows.transpose(0, 2, 1) @ rows
    columns = weights(1, 4, 8)
    _, scales = nearest(columns, 7)
    integers = round_to_plane(columns, scales, moments, 7)
    near = np.floor(columns[0] / scales[0])
    for channel in range(8):
        grid = np.array(list(product(range(-1, 3), repeat=4))) + near[:, channel]
        off = columns[0, :, channel] - np.clip(grid, -7, 7) * scales[0, channel]
        best = np.einsum("nk,kl,nl->n", off, moments[0], off).min()
        one = [array[..., [channel]] for array in (columns, integers, scales)]
        assert error(*one, rows) <= 4 * best


@pytest.mark.parametrize("inputs", [64, 63])
def test_no_neighbouring_pair_can_saturate_sixteen_bits(inputs):
    rows = correlated(1000, 1, inputs)
    columns = np.abs(weights(1, inputs, 8))
    plain, scales = nearest(columns, 127, pair_safe=True)
    moments = rows.transpose(0, 2, 1) @ rows
    integers = round_to_plane(columns, scales, moments, 127, pair_safe=True)
    pairs = inputs // 2 * 2
    sums = integers[0, 0:pairs:2].astype(int) + integers[0, 1:pairs:2]
    assert np.abs(sums).max() <= PAIR_SUM_MAX
    assert error(columns, integers, scales, rows) < error(columns, plain, scales, rows)


def test_inputs_that_are_always_zero_and_few_rows_are_no_obstacle():
    rows = correlated(5, 2, 30)
    rows[..., 3] = 0
    rows[1] = 0
    columns = weights(2, 30, 4)
    plain, scales = nearest(columns, 127)
    integers = round_to_plane(columns, scales, rows.transpose(0, 2, 1) @ rows, 127)
    np.testing.assert_array_equal(integers[1], plain[1])
    assert error(columns, integers, scales, rows) < error(columns, plain, scales, rows)

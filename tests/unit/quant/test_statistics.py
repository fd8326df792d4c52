"""What is kept of an activation stays complete, exact where it must be, and of one size."""

import tracemalloc

import numpy as np
import pytest

from vitedge.quant.statistics import ChannelStatistics

BIN = 2 ** (1 / 16)
PLAIN = np.ones(1)


def observed(*parts):
    statistics = ChannelStatistics()
    for part in parts:
        statistics.update(part)
    return statistics


def normal(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def quantiles(histogram, shares):
    """The magnitudes below which so much of it lies."""
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    return histogram.magnitudes[np.searchsorted(below, shares)]


SHARES = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999])


def assert_alike(got, want):
    """The largest magnitude is the same, and all others are within a bin."""
    assert got.amax == pytest.approx(want.amax, rel=1e-6)
    assert got.counts.sum() == want.counts.sum()
    pair = (quantiles(histogram, SHARES) for histogram in (got, want))
    np.testing.assert_allclose(*pair, rtol=1.5 * (BIN - 1))


@pytest.mark.parametrize("growth", [1e-4, 0.5, 1.0, 1.9, 7.0, 1e4])
def test_no_value_is_forgotten_and_the_largest_is_exact(growth):
    parts = [normal(64, 5, seed=i, scale=growth**i) for i in range(4)]
    together = np.abs(np.concatenate(parts))
    statistics = observed(*parts)
    np.testing.assert_array_equal(statistics.amax, together.max(axis=0))
    whole = statistics.distribution(PLAIN)
    assert whole.counts.sum() == together.size
    assert whole.amax == together.max()


@pytest.mark.parametrize("growth", [1.0, 3.0, 20.0])
def test_a_larger_value_that_comes_later_leaves_the_earlier_ones_where_they_are(growth):
    parts = [normal(20_000, 1, seed=i, scale=growth**i) for i in range(3)]
    got = quantiles(observed(*parts).distribution(PLAIN), SHARES[2:])
    want = np.quantile(np.abs(np.concatenate(parts)), SHARES[2:])
    np.testing.assert_allclose(got, want, rtol=1.5 * (BIN - 1))


def test_the_order_of_the_images_changes_next_to_nothing():
    small, large = normal(5000, 3, seed=1, scale=0.1), normal(5000, 3, seed=2, scale=10)
    forwards = observed(small, large).distribution(PLAIN)
    backwards = observed(large, small).distribution(PLAIN)
    assert forwards.amax == backwards.amax
    np.testing.assert_array_equal(forwards.counts, backwards.counts)


@pytest.mark.parametrize("strength", [1e-6, 1e6, 1e12])
def test_a_channel_far_larger_or_smaller_hides_nothing_of_the_others(strength):
    values = normal(5000, 4)
    scale = np.array([1.0, strength, 1.0, 1.0])
    grown = (values * scale).astype(np.float32)
    assert_alike(observed(grown).distribution(scale), observed(values).distribution(PLAIN))


def test_rescaling_afterwards_is_as_observing_rescaled_values():
    values = normal(20_000, 6) * np.geomspace(0.01, 100, 6, dtype=np.float32)
    scale = np.random.default_rng(1).uniform(0.1, 10, 6)
    before = observed((values / scale).astype(np.float32)).distribution(PLAIN)
    assert_alike(observed(values).distribution(scale), before)


def test_memory_does_not_grow_with_the_values_seen():
    statistics = observed(normal(100, 20))
    tracemalloc.start()
    for i in range(50):
        statistics.update(normal(1000, 20, seed=i, scale=2.0**i))
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 100_000  # the values seen take 4 MB
    assert statistics.distribution(PLAIN).counts.sum() == 20 * (100 + 50 * 1000)


def test_how_far_values_reach_below_and_above_zero_is_known_exactly():
    positive = np.abs(normal(100, 2))
    reached = observed(positive, np.zeros((5, 2), np.float32)).distribution(PLAIN)
    assert (reached.low, reached.high) == (0.0, positive.max())
    below = np.array([[0.0, -0.25]], np.float32)
    reached = observed(positive, below, positive).distribution(np.array([2.0, 0.5]))
    highest = positive.max(axis=0) / (2.0, 0.5)
    assert (reached.low, reached.high) == (0.5, pytest.approx(highest.max()))
    assert reached.amax == max(reached.low, reached.high)


def test_zeros_hide_nothing_of_what_comes_after_or_beside_them():
    values = normal(1000, 3)
    after = observed(np.zeros((10, 3), np.float32), values).distribution(PLAIN)
    assert after.amax == np.abs(values).max()
    median = np.quantile(np.abs([*values.ravel(), *[0] * 30]), 0.5)
    assert quantiles(after, np.array([0.5])) == pytest.approx(median, rel=0.07)
    values[:, 1] = 0
    beside = observed(values)
    assert beside.amax[1] == 0
    assert beside.distribution(PLAIN).amax == np.abs(values).max()
    assert beside.distribution(np.array([2.0, 1.0, 2.0])).amax == np.abs(values).max() / 2


@pytest.mark.parametrize("largest", [1e-38, 3e38])
def test_the_ends_of_float32_are_within_reach(largest):
    values = (normal(1000, 2, scale=0.1).clip(-1, 1) * largest).astype(np.float32)
    with np.errstate(over="raise", invalid="raise"):
        histogram = observed(values).distribution(PLAIN)
    assert histogram.amax == np.abs(values).max()
    assert np.isfinite(histogram.magnitudes).all()
    assert histogram.counts.sum() == values.size


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    values = normal(10, 4)
    values[3, 2] = bad
    with pytest.raises(FloatingPointError):
        observed(normal(10, 4), values)

"""What a report keeps of every run: enough to draw it, and not much more."""

import numpy as np

from vitedge.measure.latency.summary import POINTS, timing


def test_a_distribution_is_the_samples_in_order():
    rounds = np.random.default_rng(0).permutation(np.arange(1.0, 1002)).reshape(143, 7)
    latency = timing(np.arange(143) / 10, rounds)
    assert latency.distribution.quantiles_ms == tuple(np.arange(1.0, 1002, 10))
    assert (latency.p50_ms, latency.n) == (501, 1001)


def test_a_long_series_is_thinned_and_keeps_its_shape():
    starts = np.arange(2000) / 20
    rounds = np.where(starts < 50, 1.0, 2.0)[:, None] * np.ones(3)
    latency = timing(starts, rounds)
    series = np.array(latency.distribution.series)
    assert series.shape == (POINTS, 2)
    assert np.all(np.diff(series[:, 0]) > 0) and series[-1, 0] < 100
    assert set(series[:, 1]) == {1, 2} and series[0, 1] == 1 and series[-1, 1] == 2


def test_a_short_series_is_kept_whole():
    latency = timing(np.array([0.0, 0.1, 0.2]), np.array([[1.0], [2.0], [3.0]]))
    assert latency.distribution.series == ((0, 1), (0.1, 2), (0.2, 3))
    assert latency.p90_ms is None

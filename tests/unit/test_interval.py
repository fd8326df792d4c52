"""Intervals hold what they promise: published values, an independent test, simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from vitedge.errors import InputError
from vitedge.interval import _t, paired_drop_pp, ratio_of_medians


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[NDArray[np.bool_], ...]:
    """Correctness of two models from the four cells of their 2x2 table."""
    cells = [both, lost, gained, neither]
    return np.repeat([True, True, False, False], cells), np.repeat(
        [True, False, True, False], cells
    )


# Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables, ch. 8: values of the
# CRAN package contingencytables (tests/testthat/test-ch8.R).
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((59, 6, 16, 80), (-12.40, -0.54)),
        ((0, 3, 0, 0), (-12.30, 100.00)),
        ((0, 0, 3, 0), (-100.00, 12.30)),
    ],
)
def test_drop_matches_published_tango_intervals(table, expected):
    assert paired_drop_pp(*pairs(*table)) == pytest.approx(expected, abs=0.005)


def score_statistic(delta: float, b: int, c: int, n: int) -> float:
    """The paired score statistic with its constrained likelihood maximised numerically."""

    def negative_log_likelihood(q: float) -> float:
        return -float(
            stats.multinomial.logpmf([b, c, n - b - c], n, [q + delta, q, 1 - 2 * q - delta])
        )

    span = (max(0.0, -delta), (1 - delta) / 2)
    q = optimize.minimize_scalar(
        negative_log_likelihood, bounds=span, method="bounded", options={"xatol": 1e-12}
    ).x
    return ((b - c) - n * delta) / np.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(
    "table", [(700, 12, 7, 0), (55, 9, 2, 14), (1000, 1, 30, 90), (5, 4, 3, 2)]
)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_drop_limits_are_where_the_score_test_starts_to_reject(table, confidence):
    z = stats.norm.ppf((1 + confidence) / 2)
    low, high = paired_drop_pp(*pairs(*table), confidence)
    assert score_statistic(low / 100, table[1], table[2], sum(table)) == pytest.approx(z, abs=1e-3)
    assert score_statistic(high / 100, table[1], table[2], sum(table)) == pytest.approx(
        -z, abs=1e-3
    )


def test_drop_of_identical_models_has_the_width_of_a_wilson_limit():
    limit = 100 * 1.959964**2 / (719 + 1.959964**2)
    assert paired_drop_pp(*pairs(700, 0, 0, 19)) == pytest.approx((-limit, limit), abs=1e-6)


def test_drop_of_swapped_models_is_negated():
    fp32, artifact = pairs(600, 31, 12, 76)
    low, high = paired_drop_pp(fp32, artifact)
    assert paired_drop_pp(artifact, fp32) == pytest.approx((-high, -low), abs=1e-9)
    assert 0 < low < 100 * (31 - 12) / 719 < high


def test_drop_of_one_image():
    low, high = paired_drop_pp(*pairs(0, 1, 0, 0))
    assert low < 0 < high == 100
    assert paired_drop_pp(*pairs(1, 0, 0, 0))[1] < 100


@pytest.mark.parametrize(
    ("n", "lost", "gained", "least", "most"),
    [
        (719, 0.01, 0.005, 0.945, 0.955),
        (719, 0.005, 0.0, 0.945, 0.98),  # Wald's interval covers 87% here
        (719, 0.0005, 0.0005, 0.95, 1.0),
        (200, 0.05, 0.01, 0.945, 0.955),
    ],
)
def test_drop_covers_the_true_drop(n, lost, gained, least, most):
    """Exact: the probability of every table whose interval holds the true drop."""
    coverage = 0.0
    for b, c in np.ndindex(int(n * lost) + 25, int(n * gained) + 15):
        chance = stats.multinomial.pmf([b, c, n - b - c], n, [lost, gained, 1 - lost - gained])
        if chance > 1e-7:
            low, high = paired_drop_pp(*pairs(n - b - c, b, c, 0))
            coverage += chance * (low <= 100 * (lost - gained) <= high)
    assert least <= coverage <= most


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 4)])
def test_drop_needs_the_same_images_twice(n, m):
    with pytest.raises(InputError):
        paired_drop_pp(np.ones(n, dtype=bool), np.ones(m, dtype=bool))


def rounds(
    rng: np.random.Generator, ms: float, shape: tuple[int, int], machine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Latencies as a busy machine gives them: shared slow-downs, own drift, noise and spikes."""
    own = 0.02 * rng.standard_normal((shape[0], 1))
    noise = 0.02 * rng.standard_normal(shape)
    spikes = (rng.random(shape) < 0.05) * rng.exponential(0.5, shape)
    return ms * np.exp(machine[:, None] + own + noise + spikes)


@pytest.mark.parametrize(("n", "runs"), [(3, (1, 1)), (10, (1, 3)), (30, (2, 5))])
def test_ratio_covers_the_true_ratio(n, runs):
    rng = np.random.default_rng(11)
    hits = []
    for _ in range(150):
        machine = 0.05 * rng.standard_normal(n)
        slow = rounds(rng, 3.0, (n, runs[0]), machine)
        fast = rounds(rng, 1.0, (n, runs[1]), machine)
        low, high = ratio_of_medians(slow, fast)
        hits.append(low <= 3.0 <= high)
    assert np.mean(hits) >= 0.94


def test_ratio_interval_is_narrow_enough_to_decide_and_inverts_when_swapped():
    rng = np.random.default_rng(3)
    machine = 0.03 * rng.standard_normal(60)
    slow, fast = rounds(rng, 1.1, (60, 5), machine), rounds(rng, 1.0, (60, 5), machine)
    low, high = ratio_of_medians(slow, fast)
    assert 1.0 < low < 1.1 < high < 1.2
    assert ratio_of_medians(fast, slow) == pytest.approx((1 / high, 1 / low))
    assert ratio_of_medians(slow, slow) == pytest.approx((1, 1))


def test_ratio_of_binned_medians_agrees_with_the_exact_bootstrap():
    rng = np.random.default_rng(5)
    flat = np.zeros(40)
    slow, fast = rounds(rng, 2.0, (40, 60), flat), rounds(rng, 1.0, (40, 90), flat)  # > 1024 runs
    draws = rng.integers(0, 40, size=(1000, 40))
    exact = [np.log(np.median(slow[draw]) / np.median(fast[draw])) for draw in draws]
    low, high = ratio_of_medians(slow, fast)
    expected = 2 * stats.t.ppf(0.975, 39) * np.std(exact) * np.sqrt(40 / 39)
    assert np.log(high / low) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 6)])
def test_ratio_needs_three_paired_rounds(n, m):
    with pytest.raises(InputError):
        ratio_of_medians(np.ones((n, 1)), np.ones((m, 1)))


@pytest.mark.parametrize(
    ("confidence", "freedom"), [(0.95, 2), (0.95, 4), (0.9, 9), (0.99, 9), (0.95, 1000)]
)
def test_student_t_quantile(confidence, freedom):
    expected = stats.t.ppf((1 + confidence) / 2, freedom)
    assert _t(confidence, freedom) == pytest.approx(expected, rel=0.01)

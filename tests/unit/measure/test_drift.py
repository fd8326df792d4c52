"""A drift is found where there is one, and noise in spells is not taken for one."""

import numpy as np
import pytest

from vitedge.measure.latency.summary import trend

ROUNDS, RUNS = 300, 5


def series(seed, percent_per_minute, spells, seconds=60):
    """Rounds over `seconds`; `spells`: the lag-1 correlation of their 5% noise."""
    rng = np.random.default_rng(seed)
    starts = np.linspace(0, seconds, ROUNDS)
    noise = np.zeros(ROUNDS)
    for i, fresh in enumerate(rng.normal(size=ROUNDS)):
        noise[i] = spells * noise[i - 1] * (i > 0) + fresh * np.sqrt(1 - spells**2)
    level = np.exp(np.log(1 + percent_per_minute / 100) * starts / 60 + 0.05 * noise)
    return starts, level[:, None] * rng.gamma(100, 0.01, (ROUNDS, RUNS))


@pytest.mark.parametrize("percent", [-10, 10, 30])
def test_a_slope_is_found_within_its_interval(percent):
    trends = [trend(*series(seed, percent, 0)) for seed in range(20)]
    truth = 100 * np.log1p(percent / 100)
    known = [line for line in trends if line is not None]
    assert len(known) == 20
    assert sum(line.slope_ci[0] <= truth <= line.slope_ci[1] for line in known) >= 17
    assert all(line.slower == (percent > 0) for line in known)


@pytest.mark.parametrize("spells", [0, 0.9])
def test_a_steady_machine_is_not_said_to_drift(spells):
    trends = [trend(*series(seed, 0, spells)) for seed in range(100)]
    assert sum(line.slower for line in trends if line) <= 5


def test_a_slope_too_small_to_matter_is_no_alarm():
    starts = np.linspace(0, 60, ROUNDS)
    line = trend(starts, (1 + 1e-4 * starts)[:, None])  # 0.6% in all, with no noise
    assert line.slope_ci[0] > 0 and not line.slower
    assert line.slope_percent_per_minute == pytest.approx(0.6, rel=0.01)


@pytest.mark.parametrize(("seconds", "rounds"), [(9, 300), (60, 9)])
def test_a_short_run_has_no_trend(seconds, rounds):
    assert trend(np.linspace(0, seconds, rounds), np.ones((rounds, 2))) is None

"""Twenty of the places where a job may die; `python -m benchmarks.crash_points` tries them all."""

import os

import pytest

from benchmarks.crash_points import points

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each job runs in a fork")


@pytest.mark.parametrize(
    ("name", "sample"), [("export", 4), ("qat", 3), ("validate", 6), ("accept", 7)]
)
def test_what_is_left_is_old_or_new_and_the_next_run_mends_it(name, sample, tmp_path):
    wrong = {
        f"{how}, {site}": outcome
        for site, how, outcome in points(name, tmp_path / name, sample)
        if outcome
    }
    assert not wrong

"""Classes that tie: their order in the output has no part in agreement, top-1 and top-5."""

import numpy as np
import pytest

from tests.unit.measure.test_metrics import scored
from vitedge.measure.accuracy import ties

RNG = np.random.default_rng(0)
TIED = RNG.integers(0, 4, (3000, 12)).astype(np.float32)  # a quarter of the classes score alike
LABELS = RNG.integers(0, 12, 3000)


def expected(logits, labels, k):
    """Top-k where classes that tie are put in every order."""
    chosen = logits[np.arange(len(labels)), labels][:, None]
    above, equal = (logits > chosen).sum(1), (logits == chosen).sum(1)
    return np.clip((k - above) / equal, 0, 1).mean()


def test_a_tie_counts_by_the_share_of_orders_that_are_right():
    result = scored("classification", LABELS, TIED, None, 100)
    assert result.value.artifact == pytest.approx(expected(TIED, LABELS, 1), abs=0.005)
    assert result.also["top5"].artifact == pytest.approx(expected(TIED, LABELS, 5), abs=0.01)
    assert (result.artifact == LABELS).mean() == result.value.artifact
    assert (np.take_along_axis(TIED, result.artifact[:, None], 1)[:, 0] == TIED.max(1)).all()


def test_a_dead_head_is_right_once_in_as_many_times_as_there_are_classes():
    result = scored("classification", LABELS, np.zeros_like(TIED), TIED)
    assert result.value.artifact == pytest.approx(1 / 12, abs=0.005)
    assert result.agreement == pytest.approx((TIED.max(1, keepdims=True) == TIED).mean())


def test_the_order_of_classes_has_no_part_in_it():
    order = RNG.permutation(12)
    noisy = TIED + RNG.integers(0, 2, TIED.shape).astype(np.float32)
    first = scored("classification", LABELS, noisy, TIED)
    second = scored("classification", np.argsort(order)[LABELS], noisy[:, order], TIED[:, order])
    for field in ("value", "also", "agreement", "drop_ci_pp", "lost", "gained"):
        assert getattr(first, field) == getattr(second, field)


def test_rounding_that_breaks_a_tie_is_no_disagreement():
    rounded = (TIED * (1 + RNG.uniform(-2e-7, 2e-7, TIED.shape))).astype(np.float32)
    assert (rounded.argmax(1) != TIED.argmax(1)).mean() > 0.3
    result = scored("classification", LABELS, rounded, TIED)
    assert (result.agreement, result.lost, result.gained) == (1, 0, 0)
    np.testing.assert_array_equal(result.artifact, result.fp32)


@pytest.mark.parametrize(
    ("want", "got", "share"),
    [
        ([1, 3, 3], [1, 2, 3], 1),  # one of FP32's two best
        ([1, 2, 3], [1, 3, 3], 0.5),  # FP32's best, or another
        ([1, 2, 3], [1, 1, 1], 1 / 3),
        ([1, 2, 3], [3, 2, 1], 0),
        ([-1e9, 2, 2.5], [-1e9, 2.5, 2], 0),  # a masked class makes nothing tie
        ([np.inf, np.inf, 0], [np.inf, 0, 0], 1),
        ([1, 2, 3], [np.nan, 2, 3], 0),
    ],
)
def test_agreement_is_of_sets(want, got, share):
    scores = (np.array([values], np.float32) for values in (want, got))
    assert ties.agreement(*scores) == pytest.approx(share)
    maps = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (want, got))
    assert ties.agreement(*maps).item() == pytest.approx(share)

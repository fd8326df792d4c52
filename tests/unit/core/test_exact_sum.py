"""A sum that does not know the order of its terms."""

import math

import numpy as np
import pytest

from vitedge.core.exact_sum import ExactSum

RANDOM = np.random.default_rng(0)
TERMS = np.abs(RANDOM.normal(size=(400, 5))) * 10.0 ** RANDOM.integers(-60, 60, (400, 5))


def summed(*parts):
    total = ExactSum()
    for part in parts:
        total.add(part)
    return total


def test_it_is_the_sum():
    want = [math.fsum(column) for column in TERMS.T]
    np.testing.assert_allclose(summed(TERMS).values, want, rtol=1e-15)
    numbers = np.array([[0.0, 1.0, 1e77, 3e-300]])
    assert summed(numbers).values.tolist() == numbers[0].tolist()


def test_order_and_parts_do_not_matter():
    want = summed(TERMS).values
    shuffled = RANDOM.permutation(TERMS)
    assert (summed(*(row[None] for row in shuffled)).values == want).all()
    whole = summed(TERMS[300:])
    whole.join(summed(TERMS[:300]).arrays())
    assert (whole.values == want).all()


def test_what_is_not_finite_is_lost_and_no_other():
    values = summed(np.array([[np.inf, 1, np.nan]]), np.array([[1.0, 2, 3]])).values
    np.testing.assert_array_equal(values, [np.nan, 3, np.nan])


@pytest.mark.parametrize("place", [-1, 10**18])
def test_places_that_no_number_has_are_refused(place):
    stored = summed(TERMS).arrays()
    with pytest.raises(ValueError, match="out of range"):
        ExactSum().join({**stored, "places": stored["places"] * 0 + place})

"""How close outputs are: one answer each to equal, silent, empty and broken ones."""

import math

import numpy as np
import pytest

from vitedge.core.numerics import (
    absolute_error,
    cosines,
    decibels,
    fill_batch,
    relative_error,
    sqnr_db,
)

NOTHING = np.zeros((0, 3), np.float32)


@pytest.mark.parametrize(("signal", "noise", "quality_db"), [(1, 1, 0), (50, 0.5, 20), (1, 4, -6)])
def test_sqnr_is_ten_times_the_decimal_logarithm(signal, noise, quality_db):
    assert sqnr_db(signal, noise) == pytest.approx(quality_db, abs=0.03)


@pytest.mark.parametrize(
    ("signal", "noise"),
    [
        *((1.0, 0.0), (0.0, 0.0), (0.0, 1.0)),
        *((1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (math.inf, 1.0)),
    ],
)
def test_without_noise_or_signal_and_where_one_is_not_finite_there_is_no_sqnr(signal, noise):
    assert sqnr_db(signal, noise) is None


def test_a_ratio_beyond_floats_range_is_an_infinite_sqnr():
    assert sqnr_db(1e300, 1e-300) == math.inf
    assert sqnr_db(1e-300, 1e300) == -math.inf


def test_decibels_of_a_ratio():
    assert [decibels(ratio) for ratio in (1, 100, 0.001)] == pytest.approx([0, 20, -30])
    assert decibels(0) == -math.inf


def test_a_cosine_is_of_directions_alone():
    want = np.array([[1.0, 0], [1, 1], [2, 0], [0, 0]])
    got = np.array([[7.0, 0], [1, 0], [-3, 0], [1, 0]])
    np.testing.assert_allclose(cosines(want, got), [1, math.sqrt(0.5), -1, 0])
    assert cosines(np.zeros((0, 2)), np.zeros((0, 2))).shape == (0,)


def test_a_cosine_with_what_is_not_finite_is_none():
    want = np.ones((2, 2))
    got = np.array([[1.0, math.nan], [1, 1]])
    assert np.isnan(cosines(want, got)).tolist() == [True, False]


def test_errors_are_the_largest_of_all():
    want = np.array([[1.0, -4], [2, 0]], np.float32)
    got = np.array([[1.5, -4], [1, 0]], np.float32)
    assert absolute_error(want, got) == 1
    assert relative_error(want, got) == 0.25  # of -4


@pytest.mark.parametrize("values", [NOTHING, np.zeros(3), np.array([[-1.0, 2.0]])])
def test_equal_arrays_have_no_error(values):
    assert absolute_error(values, values.copy()) == relative_error(values, values.copy()) == 0


def test_any_error_on_silence_is_beyond_a_limit():
    assert relative_error(np.zeros(2), np.array([0, 1e-20])) > 1e9


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_error_that_is_not_finite_is_within_no_limit(value):
    sound, broken = np.array([1.0, 2.0]), np.array([1.0, value])
    for want, got in ((sound, broken), (broken, sound), (broken, broken)):
        assert not absolute_error(want, got) <= 1e300
        assert not relative_error(want, got) <= 1


@pytest.mark.parametrize(("size", "filled"), [(1, [0, 1, 2]), (3, [0, 1, 2]), (2, [0, 1, 2, 2])])
def test_a_batch_is_filled_up_with_its_last_image(size, filled):
    images = np.arange(3, dtype=np.uint8)[:, None, None, None]
    assert fill_batch(images, size).ravel().tolist() == filled


def test_a_batch_larger_than_the_images_is_filled_up_too():
    labels = np.array([4, 5], np.int64)
    assert fill_batch(labels, 5).tolist() == [4, 5, 5, 5, 5]
    assert fill_batch(labels, 2) is labels  # nothing to fill, nothing copied
    assert len(fill_batch(NOTHING, 4)) == 0

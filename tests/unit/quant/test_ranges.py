"""Each estimator finds the clip it is named for, on distributions whose answer is known."""

import numpy as np
import pytest

from vitedge.quant import e4m3
from vitedge.quant.ranges import (
    ESTIMATORS,
    QMAX,
    Reach,
    fp8_reach,
    one_sided,
    quantization_range,
    reach,
    stored_scale,
)
from vitedge.quant.statistics import ChannelStatistics

BIN = 2 ** (1 / 16)


def distribution(*parts):
    statistics = ChannelStatistics()
    for part in parts:
        statistics.update(part.astype(np.float32).reshape(-1, 1))
    return statistics.distribution(np.ones(1))


def clip(values, estimator, levels=QMAX):
    """Where magnitudes are clipped, of which `levels` steps reach from zero."""
    return symmetric_step(distribution(values), estimator, levels) * levels


def symmetric_step(histogram, estimator, levels=QMAX):
    reached = Reach(histogram.amax, histogram.amax, 2 * levels)
    return quantization_range(histogram, estimator, reached)[0]


def rounding_error(values, limit, levels):
    step = limit / levels
    integers = np.clip(np.rint(values / step), -levels, levels)
    return float(np.square(integers * step - values).sum())


KINDS = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "Laplace": lambda rng, size: rng.laplace(size=size),
    "heavy tail": lambda rng, size: rng.standard_t(3, size),
    "uniform": lambda rng, size: rng.uniform(-1, 1, size),
    "never negative": lambda rng, size: np.abs(rng.standard_normal(size)),
    "one outlier": lambda rng, size: np.append(rng.standard_normal(size), 30.0),
    "two scales": lambda rng, size: np.concatenate(
        [rng.normal(0, 0.01, size), rng.normal(0, 1, size // 10)]
    ),
}


def draw(kind, size=100_000):
    return KINDS[kind](np.random.default_rng(0), size)


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_the_largest_magnitude_and_percentile_that_of_all_but_one_in_ten_thousand(kind):
    magnitudes = np.abs(draw(kind))
    largest = float(magnitudes.astype(np.float32).max())
    assert clip(draw(kind), "minmax") == pytest.approx(largest, rel=1e-12)
    most = np.percentile(magnitudes, 99.99)
    assert clip(draw(kind), "percentile") == pytest.approx(most, rel=1.5 * (BIN - 1))


def best_error(values, levels):
    """With the best clip there is."""
    clips = np.abs(values).max() * np.linspace(0.02, 1, 200)
    return min(rounding_error(values, limit, levels) for limit in clips)


@pytest.mark.parametrize("levels", [QMAX, 2 * QMAX + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_rounds_as_well_as_the_best_clip_there_is(kind, levels):
    values = draw(kind)
    error = rounding_error(values, clip(values, "mse", levels), levels)
    assert error <= 1.03 * best_error(values, levels)


@pytest.mark.parametrize("growth", [1.9, 7.0])
def test_mse_on_a_stream_that_grows_is_as_good(growth):
    parts = [draw("normal", 20_000) * growth**i for i in range(4)]
    limit = symmetric_step(distribution(*parts), "mse") * QMAX
    together = np.concatenate(parts)
    assert rounding_error(together, limit, QMAX) <= 1.03 * best_error(together, QMAX)


def test_entropy_clips_a_long_tail_and_keeps_what_has_none():
    for kind in ("heavy tail", "one outlier"):
        values = draw(kind)
        assert np.percentile(np.abs(values), 90) < clip(values, "entropy")
        assert clip(values, "entropy") < 0.5 * np.abs(values).max()
    assert clip(draw("uniform"), "entropy") == pytest.approx(1.0, rel=0.05)


def test_an_outlier_is_clipped_by_every_estimator_but_minmax():
    values = draw("one outlier", 200_000)
    clips = {estimator: clip(values, estimator) for estimator in ESTIMATORS}
    assert clips.pop("minmax") == 30.0
    assert max(clips.values()) < 20


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_clip_lies_above_the_largest_value(estimator):
    for kind in KINDS:
        values = draw(kind, 5000)
        assert 0 < clip(values, estimator) <= np.abs(values).max() * (1 + 1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_unit_of_the_values_changes_nothing(estimator):
    values = draw("Laplace", 5000)
    for unit in (2.0**-10, 2.0**30):
        want = unit * clip(values, estimator)
        assert clip(values * unit, estimator) == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_tensor_of_one_value_keeps_it_and_one_of_zeros_has_a_positive_step(estimator):
    assert symmetric_step(distribution(np.zeros(6)), estimator) > 0
    values = np.full(1000, -3.25)
    step = symmetric_step(distribution(values), estimator)
    assert np.clip(np.rint(values[0] / step), -QMAX, QMAX) * step == pytest.approx(-3.25, rel=0.02)


def test_what_is_never_negative_gets_the_whole_of_uint8():
    positive, signed = distribution(draw("never negative")), distribution(draw("normal"))
    whole = reach(positive, unsigned=True, affine=False)
    assert (whole.low, whole.high, whole.levels) == (0.0, positive.amax, 255)
    for histogram, unsigned in ((positive, False), (signed, True), (signed, False)):
        reached = reach(histogram, unsigned=unsigned, affine=False)
        assert (reached.low, reached.high, reached.levels) == (histogram.amax,) * 2 + (254,)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_any_zero_point_little_is_kept_for_the_little_below_zero(estimator):
    values = draw("normal")
    values = values / (1 + np.exp(-values))  # SiLU: never below -0.28
    histogram = distribution(values)
    reached = reach(histogram, unsigned=True, affine=True)
    step, low = quantization_range(histogram, estimator, reached)
    assert low == pytest.approx(0.2785, rel=1e-3)
    zero = round(low / step)
    integers = np.clip(np.rint(values / step) + zero, 0, 255)
    error = np.square((integers - zero) * step - values).sum()
    symmetric = clip(values, estimator)
    assert error < 0.45 * rounding_error(values, symmetric, QMAX)


def test_a_scale_that_is_stored_in_float16_is_exact_there_positive_and_finite():
    scales = np.array([1e-30, 1e-8, 3e-6, 0.0123, 7.7, 1e6], np.float32)
    stored = stored_scale(scales, "fp16")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, stored.astype(np.float16))
    assert (stored > 0).all() and np.isfinite(stored).all()
    np.testing.assert_allclose(stored[3:5], scales[3:5], rtol=2**-11)
    np.testing.assert_array_equal(stored_scale(scales, "fp32"), scales)


@pytest.mark.parametrize("kind", KINDS)
def test_fp8_is_clipped_where_its_own_rounding_is_least(kind):
    """E4M3's steps grow with what they round: clipping gains little, and INT8's clip would cost."""
    values = draw(kind)
    histogram = distribution(values)
    step, _ = quantization_range(histogram, "mse", fp8_reach(histogram))

    def error(step):
        rounded = e4m3.rounded((values / step).astype(np.float32)) * step
        return float(np.square(rounded - values).sum())

    largest = histogram.amax / e4m3.LARGEST
    least = min(map(error, largest * np.geomspace(0.05, 1, 97)))
    assert error(step) <= 1.1 * least
    assert quantization_range(histogram, "minmax", fp8_reach(histogram))[0] == largest


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.17, 3.3, True), (3.3, 0.17, True), (0.7, 1, True), (0.8, 1, False), (1, 1, False)],
)
def test_a_range_is_one_sided_where_a_zero_point_gains_enough(low, high, expected):
    assert one_sided(distribution(np.array([-low, high]))) == expected

"""Each estimator finds the clip it is named for, on distributions whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vitedge.core.spec import Estimator, Quantization
from vitedge.quant.ranges import (
    ESTIMATORS,
    QMAX,
    quantization_step,
    quantized_levels,
    stored_scale,
)
from vitedge.quant.statistics import ChannelStatistics, MagnitudeHistogram

BIN = 2 ** (1 / 16)
SIGNED, UNSIGNED, MIXED = (
    Quantization(activations=kind, weights="full", attention=(), operators=("MatMul",))
    for kind in ("int8", "uint8", "mixed")
)


def distribution(*parts: NDArray[np.floating]) -> MagnitudeHistogram:
    found = ChannelStatistics()
    for part in parts:
        found.update(part.astype(np.float32).reshape(-1, 1))
    return found.distribution(np.ones(1))


def clip(values: NDArray[np.floating], estimator: Estimator, levels: int = QMAX) -> float:
    return quantization_step(distribution(values), estimator, levels) * levels


def rounding_error(values: NDArray[np.floating], limit: float, levels: int) -> float:
    step = limit / levels
    integers = np.clip(np.rint(values / step), -levels, levels)
    return float(np.square(integers * step - values).sum())


def draw(kind: str, size: int = 100_000) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    draws = {
        "normal": rng.standard_normal(size),
        "Laplace": rng.laplace(size=size),
        "heavy tail": rng.standard_t(3, size),
        "uniform": rng.uniform(-1, 1, size),
        "never negative": np.abs(rng.standard_normal(size)),
        "one outlier": np.append(rng.standard_normal(size), 30.0),
        "two scales": np.concatenate([rng.normal(0, 0.01, size), rng.normal(0, 1, size // 10)]),
    }
    return draws[kind]


KINDS = ("normal", "Laplace", "heavy tail", "uniform", "never negative", "one outlier")
KINDS += ("two scales",)


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_the_largest_magnitude_exactly(kind: str) -> None:
    values = draw(kind).astype(np.float32)
    assert clip(values, "minmax") == pytest.approx(float(np.abs(values).max()), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_leaves_one_value_in_ten_thousand_out(kind: str) -> None:
    values = draw(kind)
    assert clip(values, "percentile") == pytest.approx(
        np.percentile(np.abs(values), 99.99), rel=1.5 * (BIN - 1)
    )


@pytest.mark.parametrize("levels", [QMAX, 2 * QMAX + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_rounds_as_well_as_the_best_clip_there_is(kind: str, levels: int) -> None:
    values = draw(kind)
    largest = np.abs(values).max()
    best = min(rounding_error(values, largest * s, levels) for s in np.linspace(0.02, 1, 200))
    assert rounding_error(values, clip(values, "mse", levels), levels) <= 1.03 * best


@pytest.mark.parametrize("growth", [1.9, 7.0])
def test_mse_on_a_stream_that_grows_is_as_good(growth: float) -> None:
    parts = [draw("normal", 20_000) * growth**i for i in range(4)]
    together = np.concatenate(parts)
    found = quantization_step(distribution(*parts), "mse", QMAX) * QMAX
    largest = np.abs(together).max()
    best = min(rounding_error(together, largest * s, QMAX) for s in np.linspace(0.05, 1, 200))
    assert rounding_error(together, found, QMAX) <= 1.03 * best


def test_entropy_clips_a_long_tail_and_keeps_what_has_none() -> None:
    for kind in ("heavy tail", "one outlier"):
        values = draw(kind)
        assert clip(values, "entropy") < 0.5 * np.abs(values).max()
        assert clip(values, "entropy") > np.percentile(np.abs(values), 90)
    assert clip(draw("uniform"), "entropy") == pytest.approx(1.0, rel=0.05)


def test_an_outlier_is_clipped_by_every_estimator_but_minmax() -> None:
    values = draw("one outlier", 200_000)
    clips = {estimator: clip(values, estimator) for estimator in ESTIMATORS}
    assert clips.pop("minmax") == 30.0
    assert max(clips.values()) < 20


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_clip_lies_above_the_largest_value(estimator: Estimator) -> None:
    for kind in KINDS:
        values = draw(kind, 5000)
        assert 0 < clip(values, estimator) <= np.abs(values).max() * (1 + 1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_unit_of_the_values_changes_nothing(estimator: Estimator) -> None:
    values = draw("Laplace", 5000)
    for unit in (2.0**-10, 2.0**30):
        assert clip(values * unit, estimator) == pytest.approx(
            unit * clip(values, estimator), rel=1e-3
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_tensor_of_zeros_has_a_positive_step(estimator: Estimator) -> None:
    assert quantization_step(distribution(np.zeros(6)), estimator, QMAX) > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_tensor_of_one_value_keeps_it(estimator: Estimator) -> None:
    values = np.full(1000, -3.25)
    step = quantization_step(distribution(values), estimator, QMAX)
    assert np.clip(np.rint(values[0] / step), -QMAX, QMAX) * step == pytest.approx(-3.25, rel=0.02)


def test_what_is_never_negative_gets_the_whole_of_uint8() -> None:
    positive, signed = distribution(draw("never negative")), distribution(draw("normal"))
    assert {quantized_levels(positive, kind) for kind in (UNSIGNED, MIXED)} == {255}
    assert quantized_levels(positive, SIGNED) == 127
    assert {quantized_levels(signed, kind) for kind in (SIGNED, UNSIGNED, MIXED)} == {127}


def test_a_scale_that_is_stored_in_float16_is_exact_there_positive_and_finite() -> None:
    scales = np.array([1e-30, 1e-8, 3e-6, 0.0123, 7.7, 1e6], np.float32)
    stored = stored_scale(scales, "fp16")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, stored.astype(np.float16))
    assert (stored > 0).all() and np.isfinite(stored).all()
    np.testing.assert_allclose(stored[3:5], scales[3:5], rtol=2**-11)
    np.testing.assert_array_equal(stored_scale(scales, "fp32"), scales)

"""Integer weights keep what they must: no saturation, and the least error on the way."""

import numpy as np
import pytest

from vitedge.quant import e4m3
from vitedge.quant.ranges import QMAX
from vitedge.quant.weights import PAIR_SUM_MAX, quantize_weight


def normal(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


WEIGHTS = {
    "normal": normal(64, 32),
    "odd K": normal(63, 32),
    "K of one": normal(1, 32),
    "all maximal": np.full((64, 8), 0.7, np.float32),
    "all minimal": np.full((63, 8), -3.0, np.float32),
    "one outlier a channel": np.where(np.arange(64)[:, None] == 5, 9.0, normal(64, 8)).astype("f4"),
    "a channel of zeros": normal(64, 4) * np.array([1, 0, 1, 1], np.float32),
    "tiny": normal(64, 8, scale=1e-7),
}


@pytest.mark.parametrize("estimator", ["minmax", "mse"])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_no_neighbouring_pair_can_saturate_sixteen_bits(weight, estimator):
    integers, _ = quantize_weight(weight, 1, estimator, pair_safe=True)
    wide = integers.astype(np.int32)
    assert np.abs(wide).max() <= QMAX
    rows = len(wide) // 2 * 2
    first, second = wide[0:rows:2], wide[1:rows:2]
    same_sign = first * second > 0
    assert (np.abs(first + second)[same_sign] <= PAIR_SUM_MAX).all()
    assert np.iinfo(np.int16).max >= 255 * PAIR_SUM_MAX
    # the products of one pair, at the largest activation, as vpmaddubsw adds them
    assert (np.abs(255 * (first + second)) <= np.iinfo(np.int16).max + 1).all()


@pytest.mark.parametrize("estimator", ["minmax", "mse"])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_pair_safe_weights_are_no_worse_than_seven_bit_ones(weight, estimator):
    def error(**options):
        integers, scales = quantize_weight(weight, 1, estimator, **options)
        return np.square(integers * scales.astype(np.float64) - weight).sum(axis=0)

    half_range = error(qmax=PAIR_SUM_MAX // 2)
    assert (error(pair_safe=True) <= 1.05 * half_range + 1e-12).all()


def test_pair_safe_costs_normal_weights_little():
    weight = normal(768, 64)
    full, full_scales = quantize_weight(weight, 1, "mse")
    safe, safe_scales = quantize_weight(weight, 1, "mse", pair_safe=True)
    noise = [np.square(i * s - weight).sum() for i, s in ((full, full_scales), (safe, safe_scales))]
    assert noise[0] < noise[1] < 2 * noise[0]  # 7 bits would cost 4 times


@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_minmax_weights_come_back_within_half_a_step_and_mse_ones_no_worse(weight):
    integers, scales = quantize_weight(weight, 1, "minmax")
    minmax = integers * scales - weight
    assert (np.abs(minmax) <= scales / 2 * (1 + 1e-4)).all()
    assert (scales > 0).all()
    assert integers.min() >= -QMAX  # -128 has no positive twin
    integers, scales = quantize_weight(weight, 1, "mse")
    mse = np.square(integers * scales - weight).sum(axis=0)
    assert (mse <= np.square(minmax).sum(axis=0) * (1 + 1e-5)).all()  # in every channel


def test_mse_clips_the_tail_of_a_large_channel():
    weight = normal(65_536, 1)
    (_, mse), (_, minmax) = (quantize_weight(weight, 1, e) for e in ("mse", "minmax"))
    assert mse[0] < minmax[0]


@pytest.mark.parametrize(("shape", "axis"), [((48, 24), 1), ((24, 48), 0), ((24, 3, 4, 4), 0)])
def test_every_output_channel_has_its_own_scale(shape, axis):
    size = shape[axis]
    gain = np.linspace(0.01, 10, size).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    weight = (normal(*shape) * gain).astype(np.float32)
    integers, scales = quantize_weight(weight, axis, "minmax")
    assert (integers.shape, integers.dtype, scales.shape) == (weight.shape, np.int8, (size,))
    others = tuple(i for i in range(len(shape)) if i != axis)
    np.testing.assert_allclose(scales, np.abs(weight).max(axis=others) / QMAX, rtol=1e-6)
    assert (np.abs(integers).max(axis=others) == QMAX).all()


def test_a_transposed_weight_has_the_same_integers():
    weight = normal(48, 24)
    integers, scales = quantize_weight(weight, 1, "mse", pair_safe=True)
    turned, turned_scales = quantize_weight(weight.T.copy(), 0, "mse", pair_safe=True)
    np.testing.assert_array_equal(turned.T, integers)
    np.testing.assert_array_equal(turned_scales, scales)


@pytest.mark.parametrize(("unit", "factor"), [(1.0, 1.01), (1e-4, 1.1)])  # 2⁻²⁴ apart at 1e-6
def test_scales_in_float16_cost_next_to_nothing(unit, factor):
    weight = (np.random.default_rng(0).standard_normal((96, 64)) * unit).astype(np.float32)

    def noise(floats):
        integers, scales = quantize_weight(weight, 1, "mse", floats=floats)
        return float(np.square(integers * scales - weight).sum())

    assert noise("fp16") <= factor * noise("fp32")


@pytest.mark.parametrize("estimator", ["minmax", "mse"])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("axis", [0, 1])
def test_fp8_has_a_scale_for_each_channel_and_nothing_beyond_the_largest(weight, estimator, axis):
    limits = np.abs(weight).max(axis=1 - axis)
    numbers, scales = quantize_weight(weight, axis, estimator, qmax=448, fp8=True)
    assert (numbers.dtype, scales.shape) == (e4m3.DTYPE, limits.shape)
    steps = numbers.astype(np.float32)
    assert np.isfinite(steps).all()
    read = steps * np.expand_dims(scales, 1 - axis)
    error = np.abs(read - weight)
    if estimator == "minmax":  # to three bits, or a part of the channel's largest value
        least = 2.0**-10 * scales
        bound = np.maximum(np.abs(weight) / 15, np.expand_dims(least, 1 - axis))
        assert (error <= bound * 1.001 + 1e-20).all()

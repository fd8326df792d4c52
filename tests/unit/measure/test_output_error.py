"""SQNR of the worst token or pixel is what one would compute by hand, however large the others."""

import numpy as np
import pytest

from vitedge.measure.accuracy import likeness, metrics, output_error
from vitedge.measure.accuracy.output_error import OutputError, OutputErrors

IMAGES, CHANNELS = 12, 6


def noisy(shape, axis):
    """FP32's values and an artifact's: position k of `axis` has k times the noise; 0 is large."""
    rng = np.random.default_rng(0)
    sizes = [1] * len(shape)
    sizes[axis] = -1
    step = np.arange(shape[axis]).reshape(sizes)
    want = rng.normal(size=shape) * np.where(step == 0, 100, 1)
    got = want + rng.normal(size=shape) * 0.05 * step
    return want.astype(np.float32), got.astype(np.float32)


def by_hand(want, got, axes):
    power, noise = ((x.astype(np.float64) ** 2).sum(axis=axes) for x in (want, want - got))
    with np.errstate(divide="ignore"):
        return np.sort(10 * np.log10(power / noise).reshape(-1))


@pytest.mark.parametrize(
    ("shape", "axis", "summed"),
    [((IMAGES, 40, CHANNELS), 1, (0, 2)), ((IMAGES, CHANNELS, 5, 40), 3, (0, 1))],
    ids=["tokens", "pixels"],
)
def test_the_worst_position_and_the_one_that_5_percent_are_no_better_than(
    shape, axis, summed, monkeypatch
):
    monkeypatch.setattr(output_error, "CHUNK_BYTES", 1)  # an image at a time
    want, got = noisy(shape, axis)
    levels = by_hand(want, got, summed)
    error = OutputError()
    for part in (slice(0, 5), slice(5, None)):
        error.update(want[part], got[part])
    numerics = error.result("data")
    assert numerics.sqnr_db > levels[0] + 10
    assert numerics.token_sqnr_db.worst == pytest.approx(levels[0], abs=1e-6)
    assert numerics.token_sqnr_db.p5 == pytest.approx(levels[int(0.05 * (len(levels) - 1))])


def test_rows_that_are_equal_or_not_finite_have_no_worst_token():
    want, got = noisy((IMAGES, 4, CHANNELS), 1)
    for fp32, artifact in ((want[:, 0], got[:, 0]), (want, want), (want, want * np.nan)):
        error = OutputError()
        error.update(fp32, artifact)
        assert error.result("data").token_sqnr_db is None
    error = OutputError()
    error.update(want * (np.arange(4) > 0)[:, None], got)  # a token that FP32 gives as zeros
    assert error.result("data").token_sqnr_db.worst == pytest.approx(
        by_hand(want, got, (0, 2))[0], abs=1e-6
    )


def test_each_output_has_its_own_error_and_the_first_is_the_models():
    want, got = noisy((IMAGES, 4, CHANNELS), 1)
    errors = OutputErrors(["logits", "tokens"], "features")
    errors.update([want[:, 1], want], [want[:, 1] + 1, got])
    numerics = errors.result("data")
    assert list(numerics.outputs) == ["logits", "tokens"]
    assert numerics.max_abs_error == numerics.outputs["logits"].max_abs_error
    assert numerics.token_sqnr_db is None
    assert numerics.outputs["tokens"].token_sqnr_db is not None


@pytest.mark.parametrize("batch", [1, 5])
def test_neighbours_of_tokens_are_those_of_a_few_of_each_image(batch, monkeypatch):
    monkeypatch.setattr(likeness, "TOKENS", 60)
    want, got = noisy((IMAGES, 40, CHANNELS), 1)
    score = metrics.score("features")
    for start in range(0, IMAGES, batch):
        part = slice(start, start + batch)
        score.add(np.zeros(len(want[part])), got[part], want[part])
    result = score.result(0.95)
    assert result.artifact.shape == (IMAGES,)
    assert result.value.artifact == pytest.approx(0.3, abs=0.3) and 0 < result.value.artifact < 1
    assert sum(map(len, score._fp32)) == 60  # 5 of each
    if batch == 5:
        again = metrics.score("features")
        again.add(np.zeros(IMAGES), got, want)
        assert again.result(0.95).value == result.value

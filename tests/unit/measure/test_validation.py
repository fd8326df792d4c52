"""What `validate` says of an artifact is what one would count by hand."""

import numpy as np
import pytest

from vitedge.core.errors import InputError
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images
from vitedge.measure.accuracy.output_error import OutputError
from vitedge.measure.accuracy.validation import predict_all, run, validate
from vitedge.measure.statistics import discordant, drop_pp

CLASSES = 3
LABELS = ("a", "b", "c")


class Linear:
    """A session in numpy: logits of an image's colours, plus a bias that makes it err."""

    def __init__(self, batch, error=0.0):
        self.inputs = (TensorSpec("image", (batch, 4, 4, 3), "uint8"),)
        self.outputs = (TensorSpec("logits", (batch, CLASSES), "float32"),)
        self.sizes = []
        self._batch, self._error = batch, error

    def run(self, feed):
        images = feed["image"]
        assert images.shape[0] == self._batch or self._batch is None
        self.sizes.append(len(images))
        logits = images.mean(axis=(1, 2)).astype(np.float32)  # (n, 3): the brightest colour wins
        logits[:, 0] += self._error
        return {"logits": logits}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 4, 4, 3), np.uint8)
    labels = images.mean(axis=(1, 2)).argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % CLASSES  # a tenth is labelled otherwise
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    size = Preprocess(height=4, width=4)
    return open_images(str(tmp_path / "data.npz"), "evaluation", size, LABELS), images, labels


def measured(images, artifact, fp32, calibration=frozenset(), **options):
    tally = validate(artifact, fp32, images, "classification", calibration=calibration, **options)
    return tally.result("data", {})


@pytest.mark.parametrize("batch", [1, 7, None], ids=str)
def test_the_numbers_are_those_counted_by_hand(data, batch):
    opened, images, labels = data
    artifact, fp32 = Linear(batch, error=10.0), Linear(batch)
    accuracy, numerics, _ = measured(opened, artifact, fp32)
    want = images.mean(axis=(1, 2)).astype(np.float32)
    got = want + np.array([10, 0, 0], np.float32)
    right, fp32_right = got.argmax(1) == labels, want.argmax(1) == labels
    assert accuracy.n == 50
    assert accuracy.artifact == right.mean()
    assert accuracy.fp32 == fp32_right.mean() == 0.9
    assert accuracy.drop_pp == pytest.approx(100 * (fp32_right.mean() - right.mean()))
    assert accuracy.drop_ci_pp == drop_pp(*discordant(fp32_right, right), 50, 0.95)
    assert accuracy.drop_ci_pp[0] < accuracy.drop_pp < accuracy.drop_ci_pp[1]
    assert accuracy.agreement == (got.argmax(1) == want.argmax(1)).mean() < 1
    signal, noise = np.square(want.astype(np.float64)).sum(), 50 * 100.0
    assert numerics.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-3)
    assert numerics.max_abs_error == pytest.approx(10, rel=1e-4)
    cosines = (want * got).sum(1) / np.linalg.norm(want, axis=1) / np.linalg.norm(got, axis=1)
    assert numerics.cosine == pytest.approx(cosines.mean(), rel=1e-6)


def test_an_artifact_equal_to_fp32_has_no_noise_to_speak_of(data):
    accuracy, numerics, _ = measured(data[0], Linear(1), Linear(1))
    assert (accuracy.drop_pp, accuracy.agreement) == (0, 1)
    assert (numerics.sqnr_db, numerics.max_abs_error) == (None, 0)
    assert numerics.cosine == pytest.approx(1)


def test_an_artifact_alone_is_measured_alone(data):
    accuracy, numerics, _ = measured(data[0], Linear(1), None)
    assert accuracy.artifact == 0.9
    assert (accuracy.fp32, accuracy.drop_pp, accuracy.agreement) == (None, None, None)
    assert numerics is None


def test_both_see_the_same_images_in_the_same_runs(data):
    artifact, fp32 = Linear(7), Linear(7)
    measured(data[0], artifact, fp32)
    assert artifact.sizes == fp32.sizes == [7] * 8  # the last one filled up


def test_progress_counts_to_the_last_image(data):
    seen = []
    measured(data[0], Linear(7), None, on_progress=seen.append)
    assert seen == [7, 14, 21, 28, 35, 42, 49, 50]


def test_one_calibration_image_among_them_is_enough_to_refuse(data):
    opened = data[0]
    digests = [digest for batch in opened.batches(8) for digest in batch.digests]
    with pytest.raises(InputError, match="calibrated on") as caught:
        measured(opened, Linear(1), Linear(1), {"0" * 16, digests[-1]})
    assert "`allow_overlap=True`" in caught.value.fix
    measured(opened, Linear(1), Linear(1), {"0" * 16})


@pytest.mark.parametrize("batch", [1, 4, 16, None], ids=str)
def test_many_images_are_run_in_the_sessions_own_batches(batch):
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(predict_all(Linear(batch), images), run(Linear(None), images)[0])


def test_output_error_over_batches_is_that_of_all_at_once():
    rng = np.random.default_rng(0)
    want = rng.normal(size=(20, 5)).astype(np.float32)
    got = want + rng.normal(0, 0.01, (20, 5)).astype(np.float32)
    whole, parts = OutputError(), OutputError()
    whole.update(want, got)
    for start in range(0, 20, 3):
        parts.update(want[start : start + 3], got[start : start + 3])
    for field in ("sqnr_db", "max_abs_error", "cosine"):
        value = getattr(whole.result("golden"), field)
        assert getattr(parts.result("golden"), field) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_not_equal_to_fp32(value):
    fp32 = np.ones((2, 3), np.float32)
    artifact = fp32.copy()
    artifact[0, 1] = value
    error = OutputError()
    error.update(fp32, artifact)
    error.update(fp32, fp32)
    numerics = error.result("data")
    assert (numerics.sqnr_db, numerics.max_abs_error, numerics.cosine) == (None, None, None)

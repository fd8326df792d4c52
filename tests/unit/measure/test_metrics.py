"""Each metric is what scikit-learn, or a loop anyone can follow, makes of the same outputs."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score, top_k_accuracy_score
from sklearn.neighbors import NearestNeighbors

from vitedge.core.errors import InputError
from vitedge.measure.accuracy import metrics


def scored(task, labels, artifact, fp32, size=1000):
    """The result on outputs that come in batches of `size`."""
    score = metrics.score(task)
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        score.add(labels[part], artifact[part], fp32 if fp32 is None else fp32[part])
    return score.result(0.95)


def test_top1_and_top5_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 300)
    fp32 = rng.normal(size=(300, 20)).astype(np.float32)
    fp32[np.arange(300), labels] += 1.5
    artifact = fp32 + rng.normal(scale=0.5, size=fp32.shape).astype(np.float32)
    result = scored("classification", labels, artifact, fp32, 77)
    top1 = top_k_accuracy_score(labels, artifact, k=1, labels=range(20))
    assert result.metric == "top1"
    assert result.value.artifact == pytest.approx(top1)
    assert result.value.fp32 == pytest.approx(top_k_accuracy_score(labels, fp32, k=1))
    assert result.value.drop_pp == pytest.approx(100 * (result.value.fp32 - top1))
    assert result.drop_ci_pp[0] < result.value.drop_pp < result.drop_ci_pp[1]
    top5 = result.also["top5"]
    assert top5.artifact == pytest.approx(top_k_accuracy_score(labels, artifact, k=5))
    assert top5.fp32 == pytest.approx(top_k_accuracy_score(labels, fp32, k=5))


def test_five_classes_have_no_top5():
    assert scored("classification", np.array([0]), np.zeros((1, 5), np.float32), None).also == {}


def masks_and_logits(images, size, classes):
    """Masks with ignored pixels, and logits of FP32 and artifact that mostly agree with them."""
    rng = np.random.default_rng(1)
    masks = rng.integers(0, classes - 1, (images, size, size)).astype(np.int16)  # one never shown
    truth = np.eye(classes, dtype=np.float32)[masks].transpose(0, 3, 1, 2)
    fp32 = truth + rng.normal(scale=0.6, size=truth.shape).astype(np.float32)
    artifact = fp32 + rng.normal(scale=0.3, size=truth.shape).astype(np.float32)
    masks[:, :2] = -1
    return masks, fp32, artifact


def test_miou_and_pixel_accuracy_are_scikit_learns_over_all_known_pixels():
    masks, fp32, artifact = masks_and_logits(12, 16, 5)
    result = scored("segmentation", masks, artifact, fp32, 5)
    known = masks >= 0
    for logits, value, pixels in (
        (fp32, result.value.fp32, result.also["pixel_accuracy"].fp32),
        (artifact, result.value.artifact, result.also["pixel_accuracy"].artifact),
    ):
        choice = logits.argmax(1)[known]
        assert value == pytest.approx(jaccard_score(masks[known], choice, average="macro"))
        table = confusion_matrix(masks[known], choice)
        assert pixels == pytest.approx(np.trace(table) / table.sum())
    agree = (fp32.argmax(1) == artifact.argmax(1))[known].mean()
    assert result.agreement == pytest.approx(agree)
    assert result.drop_ci_pp[0] < result.value.drop_pp < result.drop_ci_pp[1]


def test_logits_are_resized_as_torch_does_it():
    import torch
    from torch.nn import functional as F

    logits = np.random.default_rng(0).normal(size=(7, 12, 9)).astype(np.float32)
    for size in ((48, 36), (50, 31), (12, 9)):
        want = F.interpolate(
            torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=False
        )[0]
        np.testing.assert_array_equal(metrics.class_map(logits, size), want.argmax(0).numpy())


def test_too_few_images_have_no_interval():
    masks, fp32, artifact = masks_and_logits(9, 8, 4)
    assert scored("segmentation", masks, artifact, fp32).drop_ci_pp is None


def test_masks_that_ignore_everything_measure_nothing():
    with pytest.raises(InputError, match="nothing to measure"):
        scored("segmentation", np.full((2, 8, 8), -1), np.zeros((2, 3, 8, 8), np.float32), None)


def maps_of(images, channels, size):
    """Dense maps of FP32 far from zero, and of an artifact near them, with a few pixels far off."""
    rng = np.random.default_rng(2)
    shape = (images, channels, size, size) if channels else (images, size, size)
    fp32 = (100 + 3 * rng.normal(size=shape)).astype(np.float32)
    artifact = fp32 + rng.normal(scale=0.1, size=shape).astype(np.float32)
    artifact[..., 0, 0] += 30
    return artifact, fp32


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_pixel_error_is_relative_to_the_spread_of_fp32(channels):
    artifact, fp32 = maps_of(12, channels, 8)
    result = scored("dense", np.full(12, -1), artifact, fp32, 5)
    want, got = (x.reshape(12, max(channels, 1), 64).astype(np.float64) for x in (fp32, artifact))
    spread = np.sqrt(want.transpose(1, 0, 2).reshape(len(want[0]), -1).var(axis=1).mean())
    pixels = np.abs(got - want).mean(axis=1) / spread  # (12, 64)
    assert (result.metric, result.agreement, result.value.fp32) == ("pixel_error", None, 0)
    assert result.value.artifact == pytest.approx(pixels.mean())
    assert result.value.drop_pp == pytest.approx(100 * pixels.mean())
    assert result.drop_ci_pp[0] < result.value.drop_pp < result.drop_ci_pp[1]
    p99 = np.sort(pixels, axis=1)[:, -1].mean()  # of 64, the worst
    assert result.also["pixel_error_p99"].artifact == pytest.approx(p99) and p99 > 5
    np.testing.assert_allclose(result.artifact, pixels.mean(axis=1))
    equal = scored("dense", np.full(12, -1), fp32, fp32)
    assert equal.value.artifact == equal.also["pixel_error_p99"].artifact == 0


def test_pixels_that_are_not_finite_count_as_lost():
    artifact, fp32 = maps_of(2, 1, 8)
    artifact[0] = np.nan
    artifact[1] = fp32[1]
    result = scored("dense", np.full(2, -1), artifact, fp32)
    assert result.value.artifact == pytest.approx(0.5)
    assert result.artifact.tolist() == [1, 0]


def test_maps_alone_say_nothing():
    with pytest.raises(InputError, match="FP32"):
        scored("dense", np.zeros(2), np.zeros((2, 8, 8), np.float32), None)


def test_knn_agreement_is_scikit_learns_neighbours_compared():
    rng = np.random.default_rng(0)
    fp32 = rng.normal(size=(300, 16)).astype(np.float32)
    artifact = fp32 + rng.normal(scale=0.2, size=fp32.shape).astype(np.float32)
    result = scored("features", np.full(300, -1), artifact, fp32, 64)

    def nearest(features):
        model = NearestNeighbors(n_neighbors=10, metric="cosine").fit(features)
        return model.kneighbors(return_distance=False)  # without itself

    pairs = list(zip(nearest(artifact), nearest(fp32), strict=True))
    want = np.mean([len({*artifact} & {*fp32}) / 10 for artifact, fp32 in pairs])
    assert result.metric == "knn_agreement"
    assert result.value.fp32 == 1
    assert result.value.artifact == pytest.approx(want)
    assert 0.5 < want < 1
    assert result.agreement == np.mean([artifact[0] == fp32[0] for artifact, fp32 in pairs])
    assert result.drop_ci_pp[0] < result.value.drop_pp < result.drop_ci_pp[1]


def test_features_equal_to_fp32s_keep_every_neighbour():
    features = np.random.default_rng(0).normal(size=(30, 4, 8)).astype(np.float32)
    result = scored("features", np.zeros(30), features, features)
    assert (result.value.artifact, result.value.drop_pp, result.agreement) == (1, 0, 1)


def test_features_alone_say_nothing():
    with pytest.raises(InputError, match="FP32 bundle is not here"):
        scored("features", np.zeros(2), np.zeros((2, 8), np.float32), None)


def test_nan_is_no_class():
    labels = np.array([0, 1, 2])
    fp32 = np.eye(3, dtype=np.float32)
    artifact = fp32.copy()
    artifact[:2, 2] = np.nan
    result = scored("classification", labels, artifact, fp32)
    assert (result.value.fp32, result.value.artifact) == (1, pytest.approx(1 / 3))
    assert result.agreement == pytest.approx(1 / 3)
    np.testing.assert_array_equal(result.artifact, [-1, -1, 2])


def test_pixels_of_nan_are_in_no_class():
    logits = np.zeros((1, 3, 4, 4), np.float32)
    logits[:, 0] = 1
    broken = logits.copy()
    broken[0, 1, :2] = np.nan
    result = scored("segmentation", np.zeros((1, 4, 4), np.int64), broken, logits)
    assert (result.value.fp32, result.value.artifact, result.agreement) == (1, 0.5, 0.5)


def test_features_of_nan_have_no_neighbours():
    features = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    broken = features.copy()
    broken[0] = np.nan
    assert scored("features", np.zeros(11), broken, features).artifact[0] == 0

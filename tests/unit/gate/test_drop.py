"""What was lost between two models, of metrics that are no share of right images."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.gate.conftest import changed, gate, sections
from vitedge.core.errors import InputError
from vitedge.gate.drop import PairedPredictions, between, pair
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import About, PerImage

NONE = np.zeros(0, np.int32)


def masks(worse, n=200):
    """Pixels of two classes: `worse` images of n have a third of the first class wrong."""
    counts = np.tile(np.array([[27, 30], [33, 33], [33, 33]], np.int32), (n, 1, 1))
    artifact = counts.copy()
    artifact[:worse, 0, 0] -= 9
    return PerImage(np.arange(n, dtype=np.uint64), NONE, artifact, fp32=counts)


def lost_miou(before, after, confidence=0.95):
    return between("miou", PairedPredictions(NONE, before, after), confidence)


def test_a_drop_of_miou_is_that_of_the_sums():
    per_image = masks(worse=100)
    lost = lost_miou(per_image.fp32, per_image.artifact)
    before = (27 / 39 + 30 / 36) / 2
    after = (22.5 / 43.5 + 30 / 36) / 2
    assert lost.points == pytest.approx(100 * (before - after))
    assert lost.interval_pp[0] < lost.points < lost.interval_pp[1]


def test_a_drop_of_neighbours_is_the_mean_share_lost():
    paired = PairedPredictions(NONE, np.ones(100), np.repeat([1.0, 0.9], 50))
    lost = between("knn_agreement", paired, 0.95)
    assert lost.points == pytest.approx(5)
    assert 4 < lost.interval_pp[0] < 5 < lost.interval_pp[1] < 6


def test_a_pixel_error_gained_is_a_drop():
    paired = PairedPredictions(NONE, np.full(100, 0.01), np.repeat([0.01, 0.05], 50))
    lost = between("pixel_error", paired, 0.95)
    assert lost.points == pytest.approx(2)
    assert 1.5 < lost.interval_pp[0] < 2 < lost.interval_pp[1] < 2.5


def test_too_few_images_to_resample_are_inconclusive():
    per_image = masks(worse=1, n=9)
    assert lost_miou(per_image.fp32, per_image.artifact).interval_pp == (-100, 100)


def test_masks_are_gated_and_compared_with_a_baseline_too(write, tmp_path):
    path = write(**changed("accuracy", metric="miou", lost=None, gained=None, n=200))
    about = About(metric="miou", data="pictures", files=sections()["files"], preprocessing="p")

    def answers(worse, accept):
        evidence.save(path.parent / "evidence.npz", about, evidence.arrays(masks(worse)))
        verdict = gate(path, max_drop_pp=3, baseline=tmp_path / "baseline.npz", accept=accept)
        return [judged.answer for judged in verdict.judged]

    assert answers(worse=20, accept=True) == ["passed"]
    assert answers(worse=120, accept=False) == ["failed", "failed"]


@pytest.mark.parametrize("images", [1, 2])
def test_a_class_that_few_images_show_does_not_pass_for_few_images(images):
    before = np.zeros((1000, 3, 20), np.int32)
    before[:, :, 1:] = 10
    before[:images, :, 0] = 10  # the only images of the first class
    after = before.copy()
    after[:images, :2, 0] = 0  # which the artifact does not find any more
    lost = lost_miou(before, after)
    assert lost.points == pytest.approx(5)
    assert lost.interval_pp[0] < 1 < lost.points < lost.interval_pp[1]


def test_no_interval_reaches_beyond_a_hundred_points():
    before = np.zeros((40, 3, 2), np.int32)
    before[:, :, 0] = 10
    before[0, :, 1] = 1
    after = before.copy()
    after[:12, 0] = 0
    assert max(np.abs(lost_miou(before, after, 0.999).interval_pp)) <= 100


def test_masks_that_were_drawn_otherwise_are_not_paired():
    first, second = masks(worse=3), masks(worse=3)
    second.artifact[0, 2] += 1
    with pytest.raises(InputError, match="label the same images differently"):
        pair(first, second, ("one", "two"))

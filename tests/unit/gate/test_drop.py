"""What was lost between two models, of metrics that are no share of right images."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.unit.gate.conftest import Write, gate, sections
from vitedge.core.errors import InputError
from vitedge.gate.drop import between, pair
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import About, PerImage


def masks(worse: int, n: int = 200) -> PerImage:
    """Pixels of two classes: `worse` images of n have a third of the first class wrong."""
    counts = np.tile(np.array([[27, 30], [33, 33], [33, 33]], np.int32), (n, 1, 1))
    artifact = counts.copy()
    artifact[:worse, 0, 0] -= 9
    none = np.zeros(0, np.int32)
    digests = np.arange(n, dtype=np.uint64)
    return PerImage(
        digests, none, counts, artifact, np.zeros(0, np.int64), np.zeros((0, 0, 0, 3), np.uint8)
    )


def test_a_drop_of_miou_is_that_of_the_sums() -> None:
    evidence_of_masks = masks(worse=100)
    lost = between(
        "miou", evidence_of_masks.labels, evidence_of_masks.fp32, evidence_of_masks.artifact, 0.95
    )
    before = (27 / 39 + 30 / 36) / 2
    after = (22.5 / 43.5 + 30 / 36) / 2
    assert lost.points == pytest.approx(100 * (before - after))
    assert lost.interval_pp[0] < lost.points < lost.interval_pp[1]


def test_a_drop_of_neighbours_is_the_mean_share_lost() -> None:
    kept = np.repeat([1.0, 0.9], 50)
    lost = between("knn_agreement", np.zeros(0), np.ones(100), kept, 0.95)
    assert lost.points == pytest.approx(5)
    assert 4 < lost.interval_pp[0] < 5 < lost.interval_pp[1] < 6


def test_too_few_images_to_resample_are_inconclusive() -> None:
    evidence_of_masks = masks(worse=1, n=9)
    lost = between(
        "miou", evidence_of_masks.labels, evidence_of_masks.fp32, evidence_of_masks.artifact, 0.95
    )
    assert lost.interval_pp == (-100, 100)


def test_masks_are_gated_and_compared_with_a_baseline_too(write: Write, tmp_path) -> None:
    path = write()
    accuracy = msgspec.structs.replace(
        sections()["accuracy"], metric="miou", lost=None, gained=None, n=200
    )

    def seen(worse: int) -> None:
        write(accuracy=accuracy)
        about = About(
            metric="miou", data="pictures", files=sections()["files"], preprocessing="p" * 64
        )
        evidence.save(path.parent / "evidence.npz", about, evidence.arrays(masks(worse)))

    file = tmp_path / "baseline.npz"
    seen(worse=20)
    assert gate(path, max_drop_pp=3, baseline=file, accept=True).answer == "passed"
    seen(worse=120)
    answers = [judged.answer for judged in gate(path, max_drop_pp=3, baseline=file).judged]
    assert answers == ["failed", "failed"]


@pytest.mark.parametrize("images", [1, 2])
def test_a_class_that_few_images_show_does_not_pass_for_few_images(images: int) -> None:
    before = np.zeros((1000, 3, 20), np.int32)
    before[:, :, 1:] = 10
    before[:images, :, 0] = 10  # the only images of the first class
    after = before.copy()
    after[:images, :2, 0] = 0  # which the artifact does not find any more
    lost = between("miou", np.zeros(0), before, after, 0.95)
    assert lost.points == pytest.approx(5)
    assert lost.interval_pp[0] < 1 < lost.points < lost.interval_pp[1]


def test_no_interval_reaches_beyond_a_hundred_points() -> None:
    before = np.zeros((40, 3, 2), np.int32)
    before[:, :, 0] = 10
    before[0, :, 1] = 1
    after = before.copy()
    after[:12, 0] = 0
    assert max(np.abs(between("miou", np.zeros(0), before, after, 0.999).interval_pp)) <= 100


def test_masks_that_were_drawn_otherwise_are_not_paired() -> None:
    first, second = masks(worse=3), masks(worse=3)
    second.artifact[0, 2] += 1
    with pytest.raises(InputError, match="label the same images differently"):
        pair(first, second, ("one", "two"))

"""What is kept of each image is what one would note by hand, and never passes for other bytes."""

import msgspec
import numpy as np
import pytest

from tests.unit.measure.test_validation import LABELS, Linear
from vitedge.core.bundle import open_bundle, seal
from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.validation import validate
from vitedge.measure.accuracy.worst_images import WORST_COUNT, WorstImages

KEPT_BESIDE = ("manifest.json", "evidence.npz")


@pytest.fixture
def seen(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 4, 4, 3), np.uint8)
    labels = images.mean(axis=(1, 2)).argmax(axis=1)
    labels[::10] = (labels[::10] + 1) % 3
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    size = Preprocess(height=4, width=4)
    opened = open_images(str(tmp_path / "data.npz"), "evaluation", size, LABELS)
    tally = validate(
        Linear(7, error=10.0), Linear(7), opened, "classification", calibration=frozenset()
    )
    validation = tally.result("data", {})
    assert validation.accuracy.lost - validation.accuracy.gained == pytest.approx(
        3 * validation.accuracy.drop_pp
    )
    return validation.per_image, images, labels


def test_choices_labels_and_digests_are_those_of_each_image(seen):
    per_image, images, labels = seen
    logits = images.mean(axis=(1, 2)).astype(np.float32)
    np.testing.assert_array_equal(per_image.labels, labels)
    np.testing.assert_array_equal(per_image.fp32, logits.argmax(1))
    shifted = logits + np.array([10, 0, 0], np.float32)
    np.testing.assert_array_equal(per_image.artifact, shifted.argmax(1))
    assert len(np.unique(per_image.digests)) == len(images)


def test_the_worst_images_are_those_that_only_the_artifact_has_wrong(seen):
    per_image, images, _ = seen
    differ = per_image.artifact != per_image.fp32
    lost = (per_image.fp32 == per_image.labels) & (per_image.artifact != per_image.labels)
    assert len(per_image.worst) == min(WORST_COUNT, differ.sum())
    assert differ[per_image.worst].all()
    assert lost[per_image.worst[: min(WORST_COUNT, lost.sum())]].all()
    np.testing.assert_array_equal(per_image.thumbnails[0], images[per_image.worst[0]])


def test_no_more_than_a_few_small_pictures_are_kept():
    rng = np.random.default_rng(1)
    worst = WorstImages("features")
    for _ in range(10):
        images = rng.integers(0, 256, (16, 150, 100, 3), np.uint8)
        fp32 = rng.normal(size=(16, 8)).astype(np.float32)
        worst.add(images, np.zeros(16), fp32 + 0.1 * rng.normal(size=fp32.shape), fp32)
    places, pictures = worst.result()
    assert len(set(places.tolist())) == len(pictures) == WORST_COUNT
    assert pictures.shape[1:] == (50, 33, 3)


def test_evidence_lies_beside_the_report_and_is_no_part_of_the_artifact(
    seen, tmp_path, small_bundle
):
    bundle = open_bundle(small_bundle(tmp_path / "small-int8"))
    evidence.write(bundle, "top1", "data", seen[0])
    assert {path.name for path in bundle.path.iterdir()} == {*bundle.manifest.files, *KEPT_BESIDE}
    stored = evidence.read(open_bundle(bundle.path).path)
    assert (stored.about.metric, stored.about.data) == ("top1", "data")
    assert stored.about.files == bundle.model_files
    for name, array in evidence.arrays(seen[0]).items():
        np.testing.assert_array_equal(getattr(stored.per_image, name), array)
    assert seal(bundle.path, bundle.manifest).manifest.files == bundle.manifest.files


@pytest.mark.parametrize("change", [{"mean": (0.4, 0.5, 0.5)}, {"exif": "ignore"}])
def test_other_preprocessing_has_another_digest(tmp_path, small_bundle, change):
    bundle = open_bundle(small_bundle(tmp_path / "one"))
    preprocessing = msgspec.structs.replace(
        bundle.manifest.preprocessing, host=Preprocess(height=8, width=8, **change)
    )
    other = open_bundle(small_bundle(tmp_path / "two", preprocessing=preprocessing))
    assert evidence.preprocessing_digest(bundle) != evidence.preprocessing_digest(other)


def test_evidence_of_the_first_release_is_still_of_the_same_preprocessing(tmp_path, small_bundle):
    digest = evidence.preprocessing_digest(open_bundle(small_bundle(tmp_path / "one")))
    assert digest == "ca9c29434a31786766dcd1ead4acebeb72814c2fdd5bd9f0b9743fa9cc2dbb93"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 and no more"])
def test_damaged_evidence_is_refused(tmp_path, content):
    (tmp_path / "evidence.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"evidence\.npz") as raised:
        evidence.read(tmp_path)
    assert "validate" in raised.value.fix


def test_pickles_in_it_are_not_opened(tmp_path):
    np.savez(tmp_path / "evidence.npz", about=np.array([{"schema": "x"}], dtype=object))
    with pytest.raises(InputError):
        evidence.read(tmp_path)


@pytest.mark.parametrize("name", ["labels", "fp32", "artifact", "worst"])
def test_arrays_of_other_images_are_not_believed(seen, tmp_path, name):
    named = evidence.arrays(seen[0])
    about = evidence.About(metric="top1", data="data", files={}, preprocessing="")
    evidence.save(tmp_path / "evidence.npz", about, named)
    assert evidence.read(tmp_path) is not None
    evidence.save(tmp_path / "evidence.npz", about, named | {name: named[name][1:]})
    with pytest.raises(InputError, match="not of the same images"):
        evidence.read(tmp_path)


def test_evidence_of_an_unknown_metric_is_not_believed(seen, tmp_path):
    about = evidence.About(metric="top7", data="data", files={}, preprocessing="")
    evidence.save(tmp_path / "evidence.npz", about, evidence.arrays(seen[0]))
    with pytest.raises(InputError, match="top7"):
        evidence.read(tmp_path)


@pytest.mark.parametrize(
    ("metric", "changes"),
    [
        ("top1", {"worst": np.array(["a"] * 24)}),
        ("top1", {"worst": np.zeros(24)}),
        ("top1", {"worst": np.zeros(3, np.int64), "thumbnails": np.zeros((3, 4), np.uint8)}),
        ("top1", {"labels": np.zeros(0, np.int32)}),
        ("miou", {}),
        ("miou", {name: np.zeros((300, 2, 5), np.int32) for name in ("fp32", "artifact")}),
        ("top1", {name: np.zeros((300, 3, 5), np.int32) for name in ("fp32", "artifact")}),
    ],
)
def test_arrays_of_another_kind_are_not_believed(seen, tmp_path, metric, changes):
    about = evidence.About(metric=metric, data="data", files={}, preprocessing="")
    evidence.save(tmp_path / "evidence.npz", about, evidence.arrays(seen[0]) | changes)
    with pytest.raises(InputError, match="its arrays are not of"):
        evidence.read(tmp_path)

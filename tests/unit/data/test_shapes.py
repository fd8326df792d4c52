"""The embedded shapes are the same everywhere, and masks say what the images show."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images
from vitedge.data.shapes import (
    CLASSES,
    HELD_OUT,
    LEAST_SEEN_PX,
    OBJECT_CLASSES,
    TRAINING,
    draw,
    draw_objects,
)
from vitedge.models.zoo import ZOO

SHAPES = ZOO["shapes"]


def test_the_pixels_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for index in (TRAINING[0], TRAINING[-1], *HELD_OUT[:6], HELD_OUT[-1]):
        image, mask = draw(index)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)
        digest.update(image.tobytes() + mask.tobytes())
        draw(8)  # what is drawn before it changes nothing
    assert digest.hexdigest() == "8177fe55b90ba5b4b8aa194a13f4c0b33b865e1d12aeba828460ff23c10b1fef"


def open_shapes(role, preprocess=SHAPES.preprocess, task="segmentation"):
    return open_images("shapes", role, preprocess, SHAPES.labels, task)


def test_no_image_is_both_trained_on_and_held_out():
    seen, held_out = open_shapes("calibration"), open_shapes("evaluation")
    assert (len(seen), len(held_out)) == (3000, 400)
    assert not set(TRAINING) & set(HELD_OUT)
    firsts = next(seen.batches(64)).digests + next(held_out.batches(64)).digests
    assert len(set(firsts)) == 128


def test_every_class_is_on_a_fair_share_of_the_held_out_pixels():
    masks = np.stack([draw(index)[1] for index in HELD_OUT[:100]])
    share = np.bincount(masks.ravel(), minlength=len(CLASSES)) / masks.size
    assert len(share) == len(CLASSES) == SHAPES.config.num_classes
    assert 0.5 < share[0] < 0.75
    assert share[1:].min() > 0.03


def test_masks_lie_on_the_shapes_of_the_image():
    """Colours change more from pixel to pixel where classes do than inside of one."""
    edges, insides = [], []
    for index in HELD_OUT[:50]:
        image, mask = draw(index)
        change = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=2)
        edge = np.diff(mask.astype(int), axis=1) != 0
        edges.append(change[edge])
        insides.append(change[~edge])
    assert np.concatenate(edges).mean() > 1.5 * np.concatenate(insides).mean()


def test_evaluation_gives_masks_and_calibration_images_alone():
    batch = next(open_shapes("evaluation").batches(2))
    for place, index in enumerate(HELD_OUT[:2]):
        image, mask = draw(index)
        np.testing.assert_array_equal(batch.images[place], image)
        np.testing.assert_array_equal(batch.labels[place], mask)
    assert batch.labels.dtype == np.int16
    first = next(open_shapes("calibration").batches(1))
    np.testing.assert_array_equal(first.images[0], draw(TRAINING[0])[0])
    features = next(open_shapes("evaluation", task="features").batches(1))
    np.testing.assert_array_equal(features.images[0], draw(HELD_OUT[0])[0])
    assert first.labels.tolist() == features.labels.tolist() == [-1]


def test_images_and_masks_are_resized_alike_and_no_class_is_made_up():
    large = Preprocess(height=128, width=128, resize="exact")
    batch = next(open_shapes("evaluation", large).batches(1))
    assert batch.images.shape == (1, 128, 128, 3)
    mask = draw(HELD_OUT[0])[1]
    np.testing.assert_array_equal(batch.labels[0], mask.repeat(2, axis=0).repeat(2, axis=1))


def test_boxes_are_around_what_is_seen_of_a_shape():
    """Tight, of the class of the mask, and no shape is lost that is seen on enough pixels."""
    covered = 0
    for index in HELD_OUT[:40]:
        image, seen = draw_objects(index)
        drawn, mask = draw(index)
        np.testing.assert_array_equal(image, drawn)
        shown = np.zeros_like(mask, bool)
        for (left, top, right, bottom), kind, area in zip(*seen, strict=True):
            part = mask[int(top) : int(bottom), int(left) : int(right)] == 1 + kind
            assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
            assert LEAST_SEEN_PX <= area <= part.sum()
            assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
            shown[int(top) : int(bottom), int(left) : int(right)] |= part
        assert ((mask > 0) & ~shown).sum() < 3 * LEAST_SEEN_PX  # what is left is too little to tell
        covered += len(seen.boxes)
    assert 2 * 40 <= covered <= 4 * 40
    assert CLASSES[1:] == OBJECT_CLASSES


def test_a_detector_is_evaluated_on_boxes_and_calibrated_on_images_alone():
    detr = ZOO["shapes-detr"]
    held_out = open_images("shapes", "evaluation", detr.preprocess, detr.labels, "detection")
    batch = next(held_out.batches(3))
    for place, index in enumerate(HELD_OUT[:3]):
        image, seen = draw_objects(index)
        np.testing.assert_array_equal(batch.images[place], image)
        objects = batch.labels[place]
        np.testing.assert_array_equal(objects.boxes, seen.boxes)
        np.testing.assert_array_equal(objects.classes, seen.classes)
        np.testing.assert_array_equal(objects.areas, seen.areas)
        assert not objects.crowds.any()
    calibration = open_images("shapes", "calibration", detr.preprocess, detr.labels, "detection")
    assert next(calibration.batches(1)).labels.tolist() == [-1]
    with pytest.raises(InputError, match="'shapes' has 5 classes and the model has 6"):
        open_images("shapes", "evaluation", detr.preprocess, SHAPES.labels, "detection")


def test_a_classifier_and_a_model_of_other_classes_are_not_evaluated_on_shapes():
    with pytest.raises(InputError, match="'shapes' has masks and boxes and no labels"):
        open_shapes("evaluation", task="classification")
    with pytest.raises(InputError, match="'shapes' has 6 classes and the model has 2"):
        open_images("shapes", "evaluation", SHAPES.preprocess, ("a", "b"), "segmentation")


def test_shapes_are_drawn_without_torch():
    code = (
        "import sys; from vitedge.data.shapes import draw; draw(0); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

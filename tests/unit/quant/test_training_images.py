"""Training images are split once, and dealt the same however a run is cut into pieces."""

import numpy as np
import pytest

from vitedge.core.errors import InputError
from vitedge.core.progress import SILENT
from vitedge.core.spec import Training
from vitedge.data.decode import Skip
from vitedge.data.imageset import ImageSet
from vitedge.quant.qat.images import deal, missing_classes, scan, split


def numbered(count, *, copies=1, classes=3, gone=None):
    """Images that differ, or come in `copies`; the indices in `gone` cannot be decoded."""

    def load(index):
        if gone and index in gone:
            raise Skip("broken")
        image = np.zeros((2, 2, 3), np.uint8)
        image[0, 0, :2] = divmod(index // copies, 256)
        return image, index % classes

    return ImageSet("numbered", count, load, decodes=False)


def dealt(images, indices, **how):
    how = {"epoch": 0, "first_step": 0, "process": 0, "processes": 1, **how}
    batches = deal(images, indices, Training(batch_size=4), **how)
    return [[int(i[0, 0, 0]) * 256 + int(i[0, 0, 1]) for i in b.images] for b in batches]


def test_every_image_is_on_one_side_and_each_class_on_both():
    scanned = scan(numbered(60), set(), SILENT)
    training, held_out = split(scanned, 0.1, seed=0)
    assert sorted(training + held_out) == list(range(60)) and len(held_out) == 6
    assert {i % 3 for i in held_out} == {0, 1, 2}
    assert split(scanned, 0.1, seed=0) == (training, held_out)
    assert split(scanned, 0.1, seed=1) != (training, held_out)


def test_copies_of_an_image_are_on_one_side():
    training, held_out = split(scan(numbered(60, copies=2), set(), SILENT), 0.1, seed=0)
    assert not {i // 2 for i in training} & {i // 2 for i in held_out}


def test_an_evaluation_image_among_them_is_refused():
    images = numbered(9)
    digest = next(images.batches(1, order=[4])).digests[0]
    with pytest.raises(InputError, match="1 images of 'numbered' are evaluation images, too"):
        scan(images, {digest}, SILENT)


def test_unusable_images_are_left_out_and_classes_without_one_named():
    scanned = scan(numbered(9, gone={2, 5}), set(), SILENT)
    assert scanned.usable == (0, 1, 3, 4, 6, 7, 8) and scanned.skipped == {"broken": 2}
    assert missing_classes(scanned, ["a", "b", "c", "d"]) == ["d"]


def test_processes_share_each_step_of_one():
    indices = list(range(0, 40, 2))
    whole = dealt(numbered(40), indices)
    parts = [dealt(numbered(40), indices, process=p, processes=2) for p in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole
    assert len(whole) == 5 and sorted(i for step in whole for i in step) == indices


def test_an_epoch_goes_on_where_it_was_left():
    indices = list(range(20))
    assert dealt(numbered(20), indices, first_step=2) == dealt(numbered(20), indices)[2:]
    assert dealt(numbered(20), indices, epoch=1) != dealt(numbered(20), indices)


def test_an_image_that_became_unreadable_is_no_silent_change_of_order():
    with pytest.raises(InputError, match="have become unreadable during training"):
        dealt(numbered(20, gone={7}), list(range(20)))

"""How an image is cut to the input's size, to the pixel."""

import numpy as np
import pytest
from PIL import Image

from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip
from vitedge.data.geometry import fit, resized_sizes, unchanged

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_exact_squashes_to_a_square_then_crops_the_centre():
    image = Image.fromarray(PIXELS)
    expected = image.resize((11, 11), Image.Resampling.BICUBIC).crop((3, 2, 8, 10))
    preprocess = Preprocess(height=8, width=5, resize="exact", resize_px=11)
    np.testing.assert_array_equal(fit(image, preprocess), expected)


@pytest.mark.parametrize(
    ("margin", "even", "down"), [(1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)]
)
@pytest.mark.parametrize("rounding", ["even", "down"])
def test_half_of_an_odd_margin_is_rounded_as_asked(margin, even, down, rounding):
    side = 8 + margin
    preprocess = Preprocess(height=8, width=8, resize_px=side, crop_rounding=rounding)
    start = {"even": even, "down": down}[rounding]
    np.testing.assert_array_equal(
        fit(Image.fromarray(PIXELS[:side, :side]), preprocess),
        PIXELS[start : start + 8, start : start + 8],
    )


@pytest.mark.parametrize(("pad", "corner"), [("end", (0, 0)), ("center", (1, 1))])
def test_what_is_smaller_than_the_input_has_a_margin_of_its_colour(pad, corner):
    image = Image.fromarray(PIXELS)
    expected = np.full((12, 17, 3), (1, 2, 3), np.uint8)
    top, left = corner
    expected[top : top + 10, left : left + 15] = image.resize((15, 10), Image.Resampling.BICUBIC)
    preprocess = Preprocess(
        height=12, width=17, resize="inside", resize_px=15, pad=pad, pad_color=(1, 2, 3)
    )
    np.testing.assert_array_equal(fit(image, preprocess), expected)


def test_a_side_too_large_is_cropped_where_the_other_is_padded():
    preprocess = Preprocess(height=24, width=24, resize_px=20, pad="center", pad_color=(9, 9, 9))
    expected = np.full((24, 24, 3), 9, np.uint8)
    expected[2:22] = PIXELS[:, 3:27]
    np.testing.assert_array_equal(fit(Image.fromarray(PIXELS), preprocess), expected)


def test_a_limit_of_the_longer_side_takes_from_the_shorter():
    assert resized_sizes(300, 100, Preprocess(height=60, width=60, resize_px=60)) == [(180, 60)]
    limited = Preprocess(height=90, width=90, resize_px=60, resize_limit_px=90, pad="end")
    assert resized_sizes(300, 100, limited) == [(90, 30)]


@pytest.mark.parametrize(
    "settings",
    [{"resize": "box"}, {"pad": "mirror"}, {"crop_share": 0.5}, {"resize_px": 32}],
)
def test_images_of_the_inputs_size_are_left_alone_unless_more_is_asked(settings):
    exact = {"height": 30, "width": 30, "resize": "exact"}
    assert unchanged(30, 30, Preprocess(**exact))
    assert not unchanged(30, 30, Preprocess(**(exact | settings)))


def test_a_mask_is_not_labelled_where_its_image_is_padded():
    padded = Preprocess(height=8, width=8, resize="inside", pad="end", interpolation="nearest")
    mask = Image.fromarray(np.ones((4, 8), np.int32))
    np.testing.assert_array_equal(fit(mask, padded, -1), [[1] * 8] * 4 + [[-1] * 8] * 4)


def test_a_mask_in_a_box_keeps_its_classes_and_is_not_labelled_around():
    mask = Image.fromarray(np.kron([[1, 5], [3, 7]], np.ones((32, 32))).astype(np.int32))
    boxed = Preprocess(height=64, width=64, resize="box", interpolation="nearest")
    assert np.unique(fit(mask, boxed, -1)).tolist() == [-1, 1, 3, 5, 7]


@pytest.mark.parametrize(
    ("size", "settings", "reason"),
    [
        ((3000, 1), {"resize_px": 80, "resize_limit_px": 99, "pad": "end"}, "too thin"),
        ((300, 1), {"resize": "shorter_then_inside", "pad": "center"}, "too thin"),
        ((9000, 1), {"resize": "exact", "pad": "square"}, "too large"),
    ],
)
def test_a_sliver_of_which_nothing_or_too_much_would_come_is_left_out(size, settings, reason):
    preprocess = Preprocess(height=64, width=64, **({"resize_px": 64} | settings))
    with pytest.raises(Skip, match=reason):
        fit(Image.new("RGB", size), preprocess)

"""How an image is cut to the input's size, to the pixel."""

import numpy as np
import pytest
from PIL import Image

from vitedge.core.spec import Preprocess
from vitedge.data.geometry import fit

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

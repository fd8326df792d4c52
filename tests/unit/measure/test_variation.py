"""Which outputs can prove something, and which cannot."""

import numpy as np
import pytest

from vitedge.measure.accuracy.output_error import OutputError
from vitedge.measure.accuracy.variation import Variation

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 10)).astype(np.float32)
MAPS = RNG.normal(size=(2, 5, 4, 4)).astype(np.float32)
SAME = np.repeat(LOGITS[:1], 8, axis=0)


@pytest.mark.parametrize(
    ("outputs", "images", "why"),
    [
        (LOGITS, 8, ""),
        (MAPS, 2, ""),
        (LOGITS * 1e-20, 8, ""),  # a scale is none of its business
        (0.01 * LOGITS + np.arange(10, dtype=np.float32), 8, ""),
        (0 * LOGITS, 8, "zero"),
        (SAME, 8, "the same output for all images"),
        (SAME + 1e-5 * LOGITS, 8, "the same output for all images but for"),
        (LOGITS + 1e6, 8, "every class the same value but for"),  # SQNR is the constant's
        (LOGITS + 1e6 * SAME, 8, "the same output for all images but for"),
        (SAME, 1, ""),  # of one image, many times, nobody knows what another gives
        (LOGITS[:1], 1, ""),
        (0 * LOGITS[:1], 1, "zero"),
        (np.repeat(LOGITS[:, :1], 10, axis=1), 8, "every class the same value"),
        (np.repeat(MAPS[:, :1], 5, axis=1), 2, "every class the same value"),
        (MAPS[:, :1], 2, ""),  # one class: its map varies
        (np.full((8, 1), np.nan, np.float32), 8, ""),  # said elsewhere
    ],
)
def test_what_proves_nothing_is_said(outputs, images, why):
    variation = Variation()
    for start in range(0, len(outputs), 3):
        variation.update(outputs[start : start + 3])
    said = variation.degenerate(images)
    assert why in said and bool(why) == bool(said)


def test_numerics_carry_it():
    error = OutputError()
    error.update(SAME, SAME + np.float32(0.1))
    assert "same output" in error.result("golden").degenerate
    assert error.result("golden", distinct=1).degenerate == ""

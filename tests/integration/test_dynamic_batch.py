"""With a dynamic batch, an image's output is what it is alone: in INT8, on every family.

All families: `pytest -m heavy tests/integration/test_dynamic_batch.py`, some twenty seconds each.
"""

import numpy as np
import pytest

from tests.support.lineage import ROWS, Row, exported, photographs
from vitedge.core.numerics import relative_error
from vitedge.data.open import open_images
from vitedge.measure.accuracy.validation import run
from vitedge.runtimes import open_session

pytestmark = pytest.mark.usefixtures("peers")

BATCHES = (3, 7)
ROUNDING = {"fp32": 1e-5, "int8": 1e-2}
"""Of the largest output. Kernels add up floats in another order in another batch, and what lies
between two INT8 levels may fall to the other one."""
SMALL = Row(
    "timm",
    "swin_tiny_patch4_window7_224",
    {"img_size": 56, "depths": [1, 1], "num_heads": [1, 2], "embed_dim": 24},
)
"""Windows are where a batch is folded into other axes."""


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(SMALL, id="small"),
        *(pytest.param(r, id=r.name, marks=pytest.mark.heavy) for r in ROWS),
    ],
)
def test_an_image_in_a_batch_gives_what_it_gives_alone(row, tmp_path):
    made, _ = exported(row, tmp_path, shallow=True, batch="dynamic")
    np.savez(tmp_path / "others.npz", images=photographs(max(BATCHES)))
    assert len(made) == 4
    for bundle in (result.bundle for result in made):
        spec = bundle.manifest.preprocessing.host
        others = open_images(str(tmp_path / "others.npz"), "calibration", spec, ())
        (images,) = (batch.images for batch in others.batches(max(BATCHES)))
        with open_session(bundle) as session:
            singles = np.concatenate([run(session, image[None])[0] for image in images])
            assert np.ptp(singles, axis=0).any()  # images are told apart
            for count in BATCHES:
                together = run(session, images[:count])[0]
                error = relative_error(singles[:count], together)
                assert error <= ROUNDING[bundle.manifest.precision], bundle.manifest.name

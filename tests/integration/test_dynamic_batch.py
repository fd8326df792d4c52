"""With a dynamic batch, an image's output is what it is alone: in INT8, on every family.

All families: `pytest -m heavy tests/integration/test_dynamic_batch.py`, some twenty seconds each.
"""

import numpy as np
import pytest
import torch
from torch import nn

import vitedge as ve
from tests.support.lineage import ROWS, Row, exported, photographs
from vitedge.core.numerics import relative_error
from vitedge.core.spec import Preprocess
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


class MapReadTwice(nn.Module):
    """A convolution's map, as tokens and once more for each of five queries: DETR's with masks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 16, 16)
        self.map = nn.Conv2d(16, 32, 1, bias=False)
        self.tokens, self.masks = nn.Linear(32, 5), nn.Conv2d(32, 5, 1)
        with torch.no_grad():
            self.map.weight.mul_(torch.logspace(-1, 1, 32)[:, None, None, None])

    def forward(self, images):
        x = self.map(torch.relu(self.stem(images)))
        queries = x.unsqueeze(1).expand(-1, 5, -1, -1, -1).flatten(0, 1)
        masks = self.masks(queries).mean((2, 3)).view(-1, 5, 5).mean(1)
        return self.tokens(x.flatten(2).transpose(1, 2)).mean(1) + masks


def test_int8_of_a_map_that_is_read_twice_is_right_in_batches_of_any_size(tmp_path):
    torch.manual_seed(0)
    model = ve.load(
        MapReadTwice().eval(), preprocess=Preprocess(height=32, width=32), task="features"
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    *_, made = ve.export(
        model,
        targets=["openvino-vnni"],
        precision="int8",
        only=True,
        calib_data=tmp_path / "images.npz",
        calibration="fast",
        batch="dynamic",
        output=tmp_path / "out",
        duration_s=0,
    )
    assert made.report.numerics.sqnr_db > 20  # OpenVINO's own way left 4

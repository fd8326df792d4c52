"""`random_weights`: outputs vary, and INT8's SQNR is that of all layers, whatever the library."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.lineage import photographs
from vitedge.core.spec import Preprocess
from vitedge.data.open import open_images
from vitedge.export.api import export
from vitedge.graph.preprocess import apply_numpy
from vitedge.measure.accuracy.variation import Variation
from vitedge.models.sources import ModelRequest, random_weights, resolve

pytestmark = pytest.mark.usefixtures("peers")
SMALL = ("timm:convnext_atto", "timm:efficientvit_b0", "timm:test_vit", "torchvision:resnet18")


class Gentle(nn.Module):
    """As libraries begin: a head of zeros, a branch scaled by 1e-5 and one by zero."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.gamma = nn.Parameter(1e-5 * torch.ones(8, 1, 1))
        self.head = nn.Linear(8, 5)
        for zeros in (self.norm.weight, self.head.weight):
            nn.init.zeros_(zeros)
        nn.init.constant_(self.head.bias, -7.0)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.gamma * self.branch(x)
        return self.head((x + self.norm(self.branch(x))).mean((2, 3)))


def test_what_begins_at_zero_is_drawn_and_nothing_else():
    torch.manual_seed(0)
    module = Gentle().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random_weights.spread(module, Preprocess(height=32, width=32))
    after = module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    drawn = {"gamma", "norm.weight", "head.weight"}
    assert changed == drawn | {"norm.bias", "norm.running_mean", "norm.running_var"}
    for scale in (after["gamma"], after["norm.weight"]):
        assert 0.1 <= scale.min() < scale.max() <= 1
    assert after["head.weight"].std() == pytest.approx(8**-0.5, rel=0.3)
    again = Gentle().eval()
    again.load_state_dict(before)
    random_weights.spread(again, Preprocess(height=32, width=32))
    assert all(torch.equal(tensor, after[name]) for name, tensor in again.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_tell_images_apart(name):
    model = resolve(ModelRequest(name, random_weights=True))
    spec = model.identity.preprocess
    images = open_images("random", "calibration", spec, ())
    pixels = np.concatenate([batch.images for batch in images.sample(4, seed=0)])
    variation = Variation()
    with torch.no_grad():
        variation.update(model.content(torch.from_numpy(apply_numpy(pixels, spec))).numpy())
    assert variation.degenerate(4) == ""


@pytest.mark.parametrize(
    "name", ["efficientvit_b0", pytest.param("lambda_resnet26t", marks=pytest.mark.heavy)]
)
def test_a_photograph_stays_in_the_range_of_batch_norms_statistics(name):
    from sklearn.datasets import load_sample_images

    model = resolve(ModelRequest(f"timm:{name}", random_weights=True))
    size, spreads = model.identity.preprocess.height, []
    crops = np.stack([image[:size, :size] for image in load_sample_images().images])
    for part in model.content.modules():
        if getattr(part, "running_var", None) is not None:
            part.register_forward_hook(lambda *call: spreads.append(float(call[2].std())))
    with torch.no_grad():
        model.content(torch.from_numpy(apply_numpy(crops, model.identity.preprocess)))
    assert max(spreads) < 2  # 26 and more where only noise has told


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name",
    [
        *("timm:vit_tiny_patch16_224", "timm:cait_xxs24_224", "timm:xcit_nano_12_p16_224"),
        *("timm:swin_tiny_patch4_window7_224", "timm:vit_small_patch14_reg4_dinov2"),
        *("timm:levit_128s", "timm:deit3_small_patch16_224"),
        *("torchvision:vit_b_32", "vit_tiny_patch16_224"),
    ],
)
def test_int8_of_random_weights_measures_all_layers(name, tmp_path):
    *_, int8 = export(
        name,
        **{"targets": "onnxruntime-cpu", "precision": "int8", "random_weights": True},
        **{"calib_data": "random", "calibration": "fast", "num_samples": 4},
        **{"duration_s": 0, "output": tmp_path},
    )
    assert int8.report.numerics.degenerate == ""
    assert 15 < int8.report.numerics.sqnr_db < 70


def test_a_deep_net_does_not_amplify_noise(peers):
    """Noise 40 dB below its input was 5 dB below this one's output with unbiased BatchNorm."""
    import transformers

    config = transformers.ResNetConfig(hidden_sizes=[64] * 4, embedding_size=32)
    torch.manual_seed(0)
    module = transformers.ResNetModel(config).eval()
    size = Preprocess(height=300, width=300)
    random_weights.spread(module, size)
    pixels = torch.from_numpy(apply_numpy(photographs(4), size))
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * 0.01
    with torch.no_grad():
        want = module(pixels).last_hidden_state
        got = module(pixels + noise * pixels.std()).last_hidden_state
    assert 10 * torch.log10(want.square().sum() / (got - want).square().sum()) > 30

"""Hybrids take timm's weights as they are, and compute with them what timm computes."""

from dataclasses import replace

import pytest
import torch

from tests.support.small_vits import assert_learns, assert_parity, macs_of, params, shapes, trained
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import BiTConfig, HybridConfig
from vitedge.models.zoo.hybrid import StdConv2d

pytestmark = pytest.mark.usefixtures("peers")

HYBRIDS = [name for name, model in ZOO.items() if isinstance(model.config, HybridConfig)]


@pytest.fixture
def small():
    torch.manual_seed(0)
    shape = {"depth": 1, "width": 32, "mlp_width": 64, "heads": 2, "num_classes": 10}
    return build(HybridConfig((64, 64), 8, **shape, backbone=BiTConfig(depths=(1, 2), width=32)))


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("vit_tiny_r_s16_p8_224", (224, 224)),
        ("vit_tiny_r_s16_p8_224", (160, 96)),
        ("vit_tiny_r_s16_p8_384", (384, 384)),
        ("vit_small_r26_s32_224", (224, 224)),
        ("vit_base_r50_s16_224", (224, 224)),
        pytest.param("vit_large_r50_s32_224", (224, 224), marks=pytest.mark.heavy),
    ],
)
def test_logits_are_timms(name, image_size):
    """Filled as training would: to draw a start of their own takes them ten times as long."""
    import timm

    with torch.device("meta"):
        peer = timm.create_model(name, num_classes=1000, img_size=image_size, depth=2)
        model = build(replace(ZOO[name].config, image_size=image_size, depth=2))
    trained(peer.to_empty(device="cpu"))
    model.load_state_dict(peer.state_dict(), strict=True, assign=True)
    assert_parity(model.eval(), peer, image_size)


@pytest.mark.parametrize("name", HYBRIDS)
def test_names_shapes_and_macs_are_timms(name):
    import timm

    config = ZOO[name].config
    with torch.device("meta"):
        peer = timm.create_model(name, pretrained=False, num_classes=1000)
        model, images = build(config), torch.empty(1, 3, *config.image_size)
    assert shapes(model) == shapes(peer)
    assert macs_of(model, images) == macs_of(peer, images)


@pytest.mark.parametrize(
    ("name", "millions", "gmacs"),
    [
        ("vit_tiny_r_s16_p8_224", 6.34, 0.44),
        ("vit_small_r26_s32_224", 36.43, 3.56),
        ("vit_base_r50_s16_224", 97.89, 21.66),  # published without a head
        ("vit_large_r50_s32_224", 328.99, 19.58),
    ],
)
def test_parameters_and_macs_are_the_published_ones(name, millions, gmacs):
    """The published MACs also count norms: 5 an activation, and 4 a standardised weight."""
    config = ZOO[name].config
    if name == "vit_base_r50_s16_224":
        config = replace(config, num_classes=0)
    with torch.device("meta"):
        model, images = build(config), torch.empty(1, 3, *config.image_size)
    norms = 0

    def count(module, _, output):
        nonlocal norms
        norms += 4 * module.weight.numel() if isinstance(module, StdConv2d) else 5 * output.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm | StdConv2d):
            module.register_forward_hook(count)
    macs = macs_of(model, images)
    assert params(model) / 1e6 == pytest.approx(millions, rel=0.003)
    assert (macs + norms) / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_the_backbone_ignores_scale_and_shift_of_its_weights(small):
    """What weight standardisation is for."""
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = small.eval()(images)
        for name, parameter in small.named_parameters():
            if "backbone" in name and parameter.dim() == 4:
                parameter.mul_(3).add_(0.5)
        torch.testing.assert_close(small(images), before, rtol=1e-3, atol=1e-4)


def test_a_hybrid_of_ones_own_shape_learns_with_every_parameter(small):
    logits = small.train()(torch.randn(4, 3, 64, 64))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert_learns(small)

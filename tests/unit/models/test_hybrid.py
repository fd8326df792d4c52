"""Hybrids take timm's weights as they are, and compute with them what timm computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vitedge.models.zoo import ZOO
from vitedge.models.zoo.configs import BiTConfig, HybridConfig, ViTConfig

torch = pytest.importorskip("torch")

from vitedge.models.zoo.build import build  # noqa: E402
from vitedge.models.zoo.hybrid import StdConv2d  # noqa: E402

pytestmark = pytest.mark.usefixtures("peers")

SMALL = HybridConfig(
    ViTConfig((64, 64), 8, depth=1, width=32, mlp_width=64, heads=2, num_classes=10),
    BiTConfig(depths=(1, 2), width=32),
)


def timm_model(name: str, config: HybridConfig) -> Any:
    """timm's own, with scales and shifts that are not just ones and zeros."""
    import timm

    torch.manual_seed(0)
    peer = timm.create_model(
        name,
        pretrained=False,
        num_classes=config.num_classes,
        img_size=config.image_size,
        depth=config.vit.depth,
    )
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return peer.eval()


@pytest.mark.parametrize(
    ("name", "image_size", "depth"),
    [
        ("vit_tiny_r_s16_p8_224", (224, 224), 12),
        ("vit_tiny_r_s16_p8_224", (160, 96), 12),
        ("vit_tiny_r_s16_p8_384", (384, 384), 12),
        ("vit_small_r26_s32_224", (224, 224), 12),
        ("vit_base_r50_s16_224", (224, 224), 2),
        ("vit_large_r50_s32_224", (224, 224), 2),
    ],
)
def test_logits_are_timms(name: str, image_size: tuple[int, int], depth: int) -> None:
    config = ZOO[name].config
    assert isinstance(config, HybridConfig)
    config = replace(config, vit=replace(config.vit, image_size=image_size, depth=depth))
    peer = timm_model(name, config)
    model = build(config).eval()
    model.load_state_dict(peer.state_dict(), strict=True)
    images = torch.randn(2, 3, *image_size)
    with torch.inference_mode():
        expected = peer(images)
        error = (model(images) - expected).abs().max()
    assert error <= 1e-5 * expected.abs().max()


HYBRIDS = [name for name, model in ZOO.items() if isinstance(model.config, HybridConfig)]


@pytest.mark.parametrize("name", HYBRIDS)
def test_names_shapes_and_macs_are_timms(name: str) -> None:
    import timm
    from torch.utils.flop_counter import FlopCounterMode

    config = ZOO[name].config
    with torch.device("meta"):
        peer = timm.create_model(name, pretrained=False, num_classes=1000)
        model, images = build(config), torch.empty(1, 3, *config.image_size)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in peer.state_dict().items()}
    with FlopCounterMode(display=False) as counter:
        peer(images)
    assert counter.get_total_flops() == 2 * config.macs


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("vit_tiny_r_s16_p8_224", 6.34, 0.44),
        ("vit_small_r26_s32_224", 36.43, 3.56),
        ("vit_base_r50_s16_224", 97.89, 21.66),  # published without a head
        ("vit_large_r50_s32_224", 328.99, 19.58),
    ],
)
def test_parameters_and_macs_are_the_published_ones(name: str, params: float, gmacs: float) -> None:
    """The published MACs also count norms: 5 an activation, and 4 a standardised weight."""
    config = ZOO[name].config
    assert isinstance(config, HybridConfig)
    if name == "vit_base_r50_s16_224":
        config = replace(config, vit=replace(config.vit, num_classes=0))
    with torch.device("meta"):
        model, images = build(config), torch.empty(1, 3, *config.image_size)
    norms = 0

    def count(module: Any, _: Any, output: Any) -> None:
        nonlocal norms
        norms += 4 * module.weight.numel() if isinstance(module, StdConv2d) else 5 * output.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm | StdConv2d):
            module.register_forward_hook(count)
    model(images)
    assert config.params / 1e6 == pytest.approx(params, rel=0.003)
    assert (config.macs + norms) / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_the_backbone_ignores_scale_and_shift_of_its_weights() -> None:
    """What weight standardisation is for."""
    torch.manual_seed(0)
    model, images = build(SMALL).eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        for name, parameter in model.named_parameters():
            if "backbone" in name and parameter.dim() == 4:
                parameter.mul_(3).add_(0.5)
        torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)


def test_a_hybrid_of_ones_own_shape_learns_with_every_parameter() -> None:
    torch.manual_seed(0)
    model = build(SMALL).train()
    logits = model(torch.randn(4, 3, 64, 64))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert sum(p.numel() for p in model.parameters()) == SMALL.params
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []

"""ResNets take torchvision's weights as they are, and compute with them what it computes."""

from __future__ import annotations

import pytest

from vitedge.models.zoo import ZOO
from vitedge.models.zoo.configs import ResNetConfig, TrunkConfig

torch = pytest.importorskip("torch")

from vitedge.models.zoo.build import build  # noqa: E402

pytestmark = pytest.mark.usefixtures("peers")

NAMES = ["resnet18", "resnet34", "resnet50", "resnet101"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("image_size", [(224, 224), (100, 75)])
def test_logits_are_torchvisions(name: str, image_size: tuple[int, int]) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    peer, images = get_model(name), torch.randn(4, 3, *image_size)
    with torch.no_grad():
        peer.train()(images)  # batch statistics that are not just zeros and ones
    model = build(ZOO[name].config)
    model.load_state_dict(peer.state_dict(), strict=True)
    with torch.inference_mode():
        expected = peer.eval()(images)
        error = (model.eval()(images) - expected).abs().max()
    assert error <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_torchvisions_and_timms(name: str) -> None:
    import timm
    from torchvision.models import get_model

    with torch.device("meta"):
        model = build(ZOO[name].config)
        peers = [get_model(name), timm.create_model(name, pretrained=False)]
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    for peer in peers:
        assert shapes == {key: value.shape for key, value in peer.state_dict().items()}


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_resnet_of_ones_own_shape_learns_with_every_parameter(bottleneck: bool) -> None:
    torch.manual_seed(0)
    trunk = TrunkConfig(bottleneck, depths=(1, 2, 1), width=16)
    config = ResNetConfig((64, 48), trunk, num_classes=10)
    model = build(config).train()
    logits = model(torch.randn(4, 3, 64, 48))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert sum(p.numel() for p in model.parameters()) == config.params
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []

"""ResNets take torchvision's weights as they are, and compute with them what it computes."""

import pytest
import torch

from tests.support.small_vits import assert_learns, assert_parity, shapes
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import ResNetConfig, TrunkConfig

pytestmark = pytest.mark.usefixtures("peers")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("image_size", [(224, 224), (100, 75)])
def test_logits_are_torchvisions(name, image_size):
    from torchvision.models import get_model

    torch.manual_seed(0)
    peer, images = get_model(name), torch.randn(4, 3, *image_size)
    with torch.no_grad():
        peer.train()(images)  # batch statistics that are not just zeros and ones
    model = build(ZOO[name].config)
    model.load_state_dict(peer.state_dict(), strict=True)
    assert_parity(model.eval(), peer.eval(), image_size)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_names_and_shapes_are_torchvisions_and_timms(name):
    import timm
    from torchvision.models import get_model

    with torch.device("meta"):
        model = build(ZOO[name].config)
        peers = [get_model(name), timm.create_model(name, pretrained=False)]
    assert [shapes(peer) for peer in peers] == [shapes(model)] * 2


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_resnet_of_ones_own_shape_learns_with_every_parameter(bottleneck):
    torch.manual_seed(0)
    trunk = TrunkConfig(bottleneck, depths=(1, 2, 1), width=16)
    model = build(ResNetConfig((64, 48), trunk, num_classes=10)).train()
    logits = model(torch.randn(4, 3, 64, 48))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert_learns(model)

"""One small ViT as every library builds it, and what each comparison with a peer needs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitedge.core.errors import InputError
from vitedge.models.sources import checkpoints
from vitedge.models.zoo.build import build
from vitedge.models.zoo.configs import ViTConfig

CONFIG = ViTConfig((32, 32), 8, depth=2, width=48, mlp_width=96, heads=3)  # and 1,000 classes
CLASSES = 7
TIMM = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": CLASSES,
}


@torch.no_grad()
def trained(module):
    """`module` filled as training would: no tensor is zero, one or like another."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        parameter.normal_(mean=float("norm" in name or "ln" in name), std=0.1)
    return module.eval()


def write(path, state):
    torch.save(dict(state), path)
    return path


def load(path, config):
    """Our model of a config, of as many classes as the weights file has."""
    state = checkpoints.read(path)
    config = checkpoints.adapt(config, state)
    model = build(config)
    checkpoints.load_into(model, checkpoints.at_resolution(config, state), path)
    return model.eval()


def refusal(path, config=CONFIG):
    with pytest.raises(InputError) as caught:
        load(path, config)
    return caught.value


@torch.inference_mode()
def assert_parity(ours, theirs, image_size=(32, 32)):
    """Demand the same outputs, within 1e-5 of the largest."""
    images = torch.randn(4, 3, *image_size, generator=torch.Generator().manual_seed(0))
    got, want = ours(images), theirs(images)
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def shapes(model):
    """Of its tensors, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def params(model):
    return sum(parameter.numel() for parameter in model.parameters())


def macs(config, part=""):
    """Multiply-accumulates of one image, in all or in the submodule `part`, as torch counts."""
    with torch.device("meta"):  # shapes only
        model, images = build(config).eval(), torch.empty(1, 3, *config.image_size)
    return macs_of(model, images, part)


def macs_of(model, images, part=""):
    model.requires_grad_(False)  # torch's counter follows a parameter that is handed on
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    name = f"{type(model).__name__}.{part}" if part else "Global"
    return sum(counter.get_flop_counts()[name].values()) // 2


def assert_learns(model):
    """Demand that the last loss moves every parameter of `model`."""
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []

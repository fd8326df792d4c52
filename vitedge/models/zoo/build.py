"""From a config to its module: the one place that knows which belongs to which."""

from __future__ import annotations

from torch import nn

from vitedge.models.zoo.configs import (
    Config,
    DABDETRConfig,
    DETRConfig,
    FPNConfig,
    HybridConfig,
    ResNetConfig,
    SETRConfig,
    VTResNetConfig,
)
from vitedge.models.zoo.dab_detr import DABDETR
from vitedge.models.zoo.detr import DETR
from vitedge.models.zoo.fpn import FPN
from vitedge.models.zoo.hybrid import HybridEmbed
from vitedge.models.zoo.resnet import ResNet
from vitedge.models.zoo.setr import SETR
from vitedge.models.zoo.visual_transformer import VTResNet
from vitedge.models.zoo.vit import VisionTransformer


def build(config: Config) -> nn.Module:
    """A module with new weights: images (B, 3, H, W) float32, normalised -> its task's output."""
    match config:
        case HybridConfig():
            return VisionTransformer(config, HybridEmbed(config))
        case ResNetConfig():
            return ResNet(config)
        case VTResNetConfig():
            return VTResNet(config)
        case FPNConfig():
            return FPN(config)
        case SETRConfig():
            return SETR(config)
        case DETRConfig():
            return DETR(config)
        case DABDETRConfig():
            return DABDETR(config)
        case _:
            return VisionTransformer(config)

"""The hybrid of Dosovitskiy et al. 2020, section 3.1: a CNN's feature map in place of the image.

Parameter names are timm's, so that a timm state dict loads as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import BiTConfig, HybridConfig

GROUPS = 32  # of every GroupNorm


class StdConv2d(nn.Conv2d):
    """Convolution with standardised weights (arXiv 1903.10520) and TensorFlow's SAME padding."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = self.weight.var(dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / (variance + 1e-8).sqrt()  # each output channel by itself
        return F.conv2d(
            _pad_same(x, self.kernel_size[0], self.stride[0]), weight, None, self.stride
        )


class MaxPool2dSame(nn.Module):
    """3×3 maximum, stride 2, SAME padding; of a ReLU's output, so that zeros pad it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(_pad_same(x, kernel=3, stride=2), kernel_size=3, stride=2)


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad (B, C, H, W) with zeros so that the output is H / stride, W / stride, rounded up."""
    height, width = (
        max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]
    )
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class GroupNormRelu(nn.GroupNorm):
    """GroupNorm, then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class BiTBottleneck(nn.Module):
    """relu(x + f(x)), f: 1×1, 3×3 (which strides) and 1×1 convolutions."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        inner = channels_out // 4
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.downsample = _named(
                conv=StdConv2d(channels_in, channels_out, 1, stride),
                norm=nn.GroupNorm(GROUPS, channels_out),
            )
        self.conv1 = StdConv2d(channels_in, inner, 1)
        self.norm1 = GroupNormRelu(inner)
        self.conv2 = StdConv2d(inner, inner, 3, stride)
        self.norm2 = GroupNormRelu(inner)
        self.conv3 = StdConv2d(inner, channels_out, 1)
        self.norm3 = nn.GroupNorm(GROUPS, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm1(self.conv1(x))
        residual = self.norm2(self.conv2(residual))
        residual = self.norm3(self.conv3(residual))
        return F.relu(residual + self.downsample(x))


def backbone(config: BiTConfig) -> nn.Sequential:
    """Images (B, 3, H, W) -> feature map (B, config.channels, H / config.stride, ...)."""
    stem = _named(
        conv=StdConv2d(3, config.width, 7, stride=2),
        norm=GroupNormRelu(config.width),
        pool=MaxPool2dSame(),
    )
    if not config.depths:
        return stem
    stages, channels = [], config.width
    for index, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        first = BiTBottleneck(channels, width, stride=1 if index == 0 else 2)
        rest = (BiTBottleneck(width, width, stride=1) for _ in range(depth - 1))
        stages.append(_named(blocks=nn.Sequential(first, *rest)))
        channels = width
    return _named(stem=stem, stages=nn.Sequential(*stages))


class HybridEmbed(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, N, D): the feature map, cut into patches, projected."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.backbone = backbone(config.backbone)
        p = config.feature_patch
        self.proj = nn.Conv2d(config.backbone.channels, config.width, kernel_size=p, stride=p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(self.backbone(x))
        return x.flatten(2).transpose(1, 2)


def _named(**modules: Any) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))

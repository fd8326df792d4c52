"""The ResNet of He et al. 2015 (arXiv 1512.03385), strided in the 3×3 convolution (v1.5).

Parameter names are torchvision's and timm's, so that their state dicts load as they are.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import ResNetConfig, TrunkConfig


class BasicBlock(nn.Module):
    """relu(x + f(x)), f: two 3×3 convolutions, the first of which strides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(channels_in, channels_out, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = conv(channels_out, channels_out, 3)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.downsample(x))


class Bottleneck(nn.Module):
    """relu(x + f(x)), f: 1×1, 3×3 (which strides) and 1×1 convolutions."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        inner = channels_out // 4
        self.conv1 = conv(channels_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, channels_out, 1)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(residual + self.downsample(x))


class Trunk(nn.Module):
    """Stem and stages `layer1`, `layer2`, ...: what every ResNet here begins with."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.conv1 = conv(3, config.width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        block = Bottleneck if config.bottleneck else BasicBlock
        self.stages = [f"layer{index + 1}" for index in range(len(config.depths))]
        channels = config.width
        for name, depth, width in zip(self.stages, config.depths, config.widths, strict=True):
            first = block(channels, width, stride=1 if name == "layer1" else 2)
            rest = (block(width, width, stride=1) for _ in range(depth - 1))
            self.add_module(name, nn.Sequential(first, *rest))
            channels = width

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> the output of every stage: (B, C, H/4, W/4), (B, 2C, H/8, W/8)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        maps = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


class ResNet(Trunk):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes) float32."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config.trunk)
        self.config = config
        self.fc = nn.Linear(config.trunk.widths[-1], config.num_classes)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.feature_maps(x)[-1].mean(dim=(2, 3)))


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias, before a norm; padded so that only `stride` changes the size."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)


def init_weights(module: nn.Module) -> None:
    """He's initialisation, which keeps the variance of activations through ReLUs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    return nn.Sequential(conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))

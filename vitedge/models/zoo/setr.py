"""SETR of Zheng et al. 2020 (arXiv 2012.15840): segmentation as sequence to sequence.

A ViT without convolutions or strides encodes patches; one of three light decoders makes pixels of
them. Parameter names of the encoder are timm's.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import SETRConfig
from vitedge.models.zoo.resnet import conv, init_weights
from vitedge.models.zoo.vit import Block, PatchEmbed


class SETR(nn.Module):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes, h, w) float32.

    h and w are those of the decoder's last convolution. The paper's last step, to all H × W pixels,
    is bilinear: whoever reads the logits takes it, as of every segmentation model here.
    """

    def __init__(self, config: SETRConfig) -> None:
        super().__init__()
        self.config = config
        encoder = config.encoder
        self.patch_embed = PatchEmbed(encoder)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.ModuleList(Block(encoder) for _ in range(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width, eps=1e-6) for _ in config.layers)
        self.decoder = _DECODERS[config.decoder](config)
        self.decoder.apply(init_weights)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        z = self.patch_embed(x) + self.pos_embed  # (B, L, C): patches alone, no class token
        features = []
        for layer, block in enumerate(self.blocks, start=1):
            z = block(z)
            if layer in self.config.layers:
                features.append(z)
        read = zip(self.norms, features, strict=True)
        return self.decoder([norm(z).mT.unflatten(2, self.config.grid) for norm, z in read])


class Naive(nn.Module):
    """1×1 convolution, then the classifier: logits of a pixel each patch."""

    def __init__(self, config: SETRConfig) -> None:
        super().__init__()
        self.layer = _layer(config.width, config.decoder_width, 1)
        self.classifier = nn.Conv2d(config.decoder_width, config.num_classes, kernel_size=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.classifier(self.layer(maps[-1]))


class ProgressiveUpsampling(nn.Module):
    """PUP: a 3×3 convolution before every doubling, until pixels are as fine as the image's.

    The classifier is 1×1, so that it may stand before the last doubling. The paper names no widths:
    the first convolution's 1024 is what its counts of parameters imply (318.31 M with ViT-L,
    97.64 M with ViT-B), where public code has 256 (309.6 M).
    """

    def __init__(self, config: SETRConfig) -> None:
        super().__init__()
        rest = [config.decoder_width] * (config.doublings - 1)
        widths = (config.width, config.first_width, *rest)
        self.layers = nn.ModuleList(_layer(*pair, 3) for pair in pairwise(widths))
        self.classifier = nn.Conv2d(widths[-1], config.num_classes, kernel_size=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for index, layer in enumerate(self.layers):
            x = layer(_larger(x, 2) if index else x)
        return self.classifier(x)


class MultiLevelAggregation(nn.Module):
    """MLA: streams of four layers, each added to those below it, joined at a quarter of the size.

    Channels are halved at the first and the third layer of a stream; a 3×3 convolution follows the
    addition. Widths are those of the authors' code, which have the paper's counts.
    """

    def __init__(self, config: SETRConfig) -> None:
        super().__init__()
        wide, narrow = config.decoder_width, config.decoder_width // 2
        self.scale = config.patch_size // 4
        self.first = nn.ModuleList(_layer(config.width, wide, 1) for _ in config.layers)
        self.second = nn.ModuleList(_layer(wide, wide, 3) for _ in config.layers)
        self.third = nn.ModuleList(
            nn.Sequential(_layer(wide, narrow, 3), _layer(narrow, narrow, 3)) for _ in config.layers
        )
        joined = narrow * len(config.layers)
        self.classifier = nn.Conv2d(joined, config.num_classes, kernel_size=3, padding=1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        streams = [layer(x) for layer, x in zip(self.first, maps, strict=True)]
        for index in reversed(range(len(streams) - 1)):  # top down, from the deepest
            streams[index] = streams[index] + streams[index + 1]
        read = zip(self.second, self.third, streams, strict=True)
        levels = [_larger(third(second(x)), self.scale) for second, third, x in read]
        return self.classifier(torch.cat(levels, dim=1))


_DECODERS = {"naive": Naive, "pup": ProgressiveUpsampling, "mla": MultiLevelAggregation}


def _layer(channels_in: int, channels_out: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        conv(channels_in, channels_out, kernel), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def _larger(x: Tensor, scale: int) -> Tensor:
    if scale == 1:
        return x
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)

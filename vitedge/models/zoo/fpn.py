"""Semantic segmentation on a feature pyramid: FPN (arXiv 1612.03144) and VT-FPN (2006.03677).

The trunk and the head are the same, so that the two pyramids compare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import FPNConfig, VTFPNConfig
from vitedge.models.zoo.resnet import Trunk, conv, init_weights
from vitedge.models.zoo.visual_transformer import FilterTokenizer, Projector, TokenTransformer


class Pyramid(nn.Module):
    """Stage outputs -> levels of one width: each 1×1, plus the coarser one, then 3×3."""

    def __init__(self, config: FPNConfig) -> None:
        super().__init__()
        self.laterals = _laterals(config)
        self.outputs = nn.ModuleList(
            nn.Conv2d(config.width, config.width, 3, padding=1) for _ in config.trunk.widths
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for index in reversed(range(len(levels) - 1)):
            finer, coarser = levels[index], levels[index + 1]
            levels[index] = finer + F.interpolate(coarser, size=finer.shape[-2:], mode="nearest")
        return [output(x) for output, x in zip(self.outputs, levels, strict=True)]


class VTPyramid(nn.Module):
    """Stage outputs -> levels of one width: each 1×1, then what the tokens of all levels say.

    Every level gives L tokens; a transformer relates all of them; each level reads its own back.
    Levels meet in the tokens, so there are no 3×3 convolutions and no path from level to level.
    """

    def __init__(self, config: VTFPNConfig) -> None:
        super().__init__()
        self.tokens = config.vt.tokens
        self.laterals = _laterals(config)
        levels = config.trunk.widths
        self.tokenizers = nn.ModuleList(FilterTokenizer(config.vt, config.width) for _ in levels)
        self.transformer = TokenTransformer(config.vt)
        self.projectors = nn.ModuleList(Projector(config.vt, config.width) for _ in levels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        pixels = [x.flatten(2).mT for x in levels]  # each (B, HW, C)
        tokens = [tokenize(x) for tokenize, x in zip(self.tokenizers, pixels, strict=True)]
        merged = self.transformer(torch.cat(tokens, dim=1))  # (B, levels × L, C_T)
        parts = merged.split(self.tokens, dim=1)
        read = zip(self.projectors, pixels, parts, levels, strict=True)
        return [project(x, t).mT.reshape(level.shape) for project, x, t, level in read]


class FPN(Trunk):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes, H/4, W/4) float32.

    The head is a 3×3 convolution a level, the sum of all at the finest, and a 1×1 classifier: with
    it the whole has the MACs that the VT paper states (159 G with FPN, 113 G with VT-FPN).
    """

    def __init__(self, config: FPNConfig) -> None:
        super().__init__(config.trunk)
        self.config = config
        self.pyramid = VTPyramid(config) if isinstance(config, VTFPNConfig) else Pyramid(config)
        self.head = nn.ModuleList(
            nn.Sequential(
                conv(config.width, config.head_width, 3),
                nn.BatchNorm2d(config.head_width),
                nn.ReLU(),
            )
            for _ in config.trunk.widths
        )
        self.classifier = nn.Conv2d(config.head_width, config.num_classes, kernel_size=1)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.pyramid(self.feature_maps(x))
        finest, *coarser = (head(level) for head, level in zip(self.head, levels, strict=True))
        for level in coarser:
            finest = finest + F.interpolate(
                level, size=finest.shape[-2:], mode="bilinear", align_corners=False
            )
        return self.classifier(finest)


def _laterals(config: FPNConfig) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, config.width, 1) for channels in config.trunk.widths)

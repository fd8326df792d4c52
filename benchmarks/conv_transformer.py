"""A small hybrid of convolutions and attention, trained on what is embedded: no download needed.

Inverted bottlenecks with depthwise convolutions and squeeze-and-excite, then transformer blocks on
their last map, as in MobileViT (Mehta 2022) and EfficientFormer (Li 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class Bottleneck(nn.Module):
    """1×1, depthwise 3×3, squeeze-and-excite, 1×1; a residual where the map keeps its shape."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.block = nn.Sequential(
            *(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU()),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), nn.SiLU(), SqueezeExcite(wide)),
            *(nn.Conv2d(wide, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)),
        )
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.residual else y


class Block(nn.Module):
    """A pre-norm transformer block on tokens (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        count, width = tokens.shape[1:]
        qkv = self.qkv(self.norm_attention(tokens))
        q, k, v = qkv.reshape(-1, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, count, width)
        tokens = tokens + self.projection(context)
        return tokens + self.mlp(self.norm_mlp(tokens))


class ConvTransformer(nn.Module):
    """(B, 3, H, W) in -1..1 -> logits (B, classes), or `dense` (B, classes, H/4, W/4)."""

    def __init__(self, classes: int, *, dense: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU()
        )
        self.stages = nn.Sequential(Bottleneck(16, 32, 2), Bottleneck(32, 32, 1))
        self.deep = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.blocks = nn.Sequential(Block(64, 4), Block(64, 4))
        self.dense = dense
        self.up = nn.Conv2d(64, 32, 1)
        self.norm = nn.LayerNorm(32 if dense else 64)
        self.head = nn.Linear(32 if dense else 64, classes)

    def forward(self, images: Tensor) -> Tensor:
        shallow = self.stages(self.stem(images))
        deep = self.deep(shallow)
        tokens = self.blocks(deep.flatten(2).transpose(1, 2))
        if not self.dense:
            logits: Tensor = self.head(self.norm(tokens.mean(1)))
            return logits
        deep = tokens.transpose(1, 2).reshape(deep.shape)
        merged = shallow + F.interpolate(self.up(deep), scale_factor=2.0, mode="nearest")
        return self.head(self.norm(merged.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def trained(data: str, seed: int) -> nn.Module:
    """One trained on `digits` or `shapes`: about a minute or two on two cores."""
    from examples.references import digits, shapes
    from vitedge.models.zoo import ZOO

    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model = ConvTransformer(len(ZOO[data].labels), dense=data == "shapes")
    if data == "digits":
        digits.train(model, 30, random)
    else:
        shapes.train(model, 6, random)
    return model.eval()

"""The Vision Transformer of Dosovitskiy et al. 2020 (arXiv 2010.11929), equations 1-4.

Parameter names are timm's, so that a timm state dict loads as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitedge.models.zoo.configs import ViTConfig


class PatchEmbed(nn.Module):
    """Cut the image into P×P patches and project each linearly: x_p E of equation 1."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        p = config.patch_size
        self.proj = nn.Conv2d(3, config.width, kernel_size=p, stride=p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)  # (B, D, H / P, W / P)
        return x.flatten(2).transpose(1, 2)  # (B, N, D)


class Attention(nn.Module):
    """Multi-head self-attention, MSA: softmax(q kᵀ / √D_h) v for every head, then a projection."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = (config.width // config.heads) ** -0.5
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        _, tokens, width = x.shape
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D_h)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)  # (B, heads, T, T)
        return self.proj((weights @ v).transpose(1, 2).reshape(-1, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """One pre-LN encoder block: equations 2 and 3."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x)) + x  # z'_l = MSA(LN(z_{l-1})) + z_{l-1}
        return self.mlp(self.norm2(x)) + x  # z_l = MLP(LN(z'_l)) + z'_l


class VisionTransformer(nn.Module):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes) float32.

    With no classes, the pooled token (B, D). With DeiT's distillation token the answer is the mean
    of both heads.
    """

    def __init__(self, config: ViTConfig, patch_embed: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = patch_embed or PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        norm = nn.LayerNorm(config.width, eps=1e-6)
        self.norm = norm if config.pool == "token" else nn.Identity()
        self.fc_norm = norm if config.pool == "avg" else nn.Identity()
        self.head = _classifier(config)
        if config.distilled:
            self.head_dist = _classifier(config)
        self.apply(_init_weights)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        prefix = [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]
        x = torch.cat([*(token.expand(x.shape[0], -1, -1) for token in prefix), x], dim=1)
        x = x + self.pos_embed  # z_0 = [x_cls; x_p E] + E_pos
        x = self.norm(self.blocks(x))
        if self.config.pool == "avg":
            return self.head(self.fc_norm(x[:, len(prefix) :].mean(dim=1)))
        if self.config.distilled:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        return self.head(x[:, 0])  # y = LN(z_L^0)


def _classifier(config: ViTConfig) -> nn.Module:
    return nn.Linear(config.width, config.num_classes) if config.num_classes else nn.Identity()


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)

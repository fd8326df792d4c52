"""DETR of Carion et al. 2020 (arXiv 2005.12872): detection as set prediction.

A CNN's map goes through a transformer; learned queries, all at once, read from it one object each,
or none. Layer norms follow the residuals, and positions are added to queries and keys alone.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import DETRConfig
from vitedge.models.zoo.resnet import Trunk, init_weights


class Attention(nn.Module):
    """Multi-head attention of (B, N, D) to (B, M, D): softmax(q kᵀ / √D_h + bias) v, projected."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, D_h)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        return self.out_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention of positions of the map, then a feed-forward network."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        placed = x + position
        x = self.norm1(x + self.self_attn(placed, placed, x))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(nn.Module):
    """Self-attention of queries, their attention to the map, then a feed-forward network.

    The biases, where they are given, are added to the scores of either attention.
    """

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.cross_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        query_position: Tensor,
        position: Tensor,
        self_bias: Tensor | None = None,
        cross_bias: Tensor | None = None,
    ) -> Tensor:
        placed = x + query_position
        x = self.norm1(x + self.self_attn(placed, placed, x, self_bias))
        read = self.cross_attn(x + query_position, memory + position, memory, cross_bias)
        x = self.norm2(x + read)
        return self.norm3(x + self.linear2(F.relu(self.linear1(x))))


class MLP(nn.Module):
    """Linear layers with ReLUs between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DETR(nn.Module):
    """Images (B, 3, H, W) float32, normalised -> logits (B, queries, classes + 1), the last of them
    no object, and boxes (B, queries, 4): centre, width and height, relative to the image, 0 to 1.
    """

    position: Tensor

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.config = config
        width, shape = config.width, (config.width, config.heads, config.mlp_width)
        self.backbone = Trunk(config.trunk)
        self.input_proj = nn.Conv2d(config.trunk.widths[-1], width, kernel_size=1)
        self.encoder = nn.ModuleList(EncoderLayer(*shape) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*shape) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(config.queries, width)
        self.class_embed = nn.Linear(width, config.num_classes + 1)
        self.bbox_embed = MLP(width, width, width, 4)
        self.register_buffer("position", sine_positions(config.grid, width), persistent=False)
        self.backbone.apply(init_weights)
        for layers in (self.encoder, self.decoder):
            for parameter in layers.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.input_proj(self.backbone.feature_maps(x)[-1])  # (B, D, H/32, W/32)
        memory = features.flatten(2).mT
        for layer in self.encoder:
            memory = layer(memory, self.position)
        queries = self.query_embed.weight.expand(len(x), -1, -1)
        objects = torch.zeros_like(queries)
        for layer in self.decoder:
            objects = layer(objects, memory, queries, self.position)
        objects = self.norm(objects)
        return self.class_embed(objects), self.bbox_embed(objects).sigmoid()


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(1, rows · columns, width): sines and cosines of y, then of x, from above 0 to 2π.

    Of the appendix "spatial positional encoding"; frequencies fall to 1/10,000.
    """
    rows, columns = (
        2 * math.pi * torch.arange(1, side + 1) / (side + 1e-6)
        for side in grid  # the authors' ε
    )
    index = torch.arange(width // 4)
    frequencies = 10_000 ** (-index / (width // 4))

    def waves(at: Tensor) -> Tensor:
        angles = at[:, None] * frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)  # (side, width / 2)

    y = waves(rows)[:, None].expand(-1, grid[1], -1)
    x = waves(columns)[None].expand(grid[0], -1, -1)
    return torch.cat([y, x], dim=2).flatten(0, 1)[None]

"""A small DETR that learns in minutes: DAB-DETR's anchors (Liu et al. 2022, arXiv 2201.12329).

Queries are boxes, which each layer of the decoder refines; what they read from the map is biased by
where its positions lie to the box (Lin et al. 2023, arXiv 2308.01904). A plain ViT makes the map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitedge.models.zoo.configs import DABDETRConfig
from vitedge.models.zoo.detr import MLP, DecoderLayer
from vitedge.models.zoo.vit import Block, PatchEmbed

FREQUENCIES = 16
"""Of the sines and cosines of each number of a box."""
PRIOR = 0.05
"""Score of every class before training, as of focal losses."""

Layer = tuple[Tensor, Tensor]
"""Logits (B, queries, classes) and boxes (B, queries, 4) of one layer of the decoder."""


class DABDETR(nn.Module):
    """Images (B, 3, H, W) float32, normalised -> logits (B, queries, classes), a sigmoid's, and
    boxes (B, queries, 4): centre, width and height, relative to the image, 0 to 1.
    """

    centres: Tensor

    def __init__(self, config: DABDETRConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        rows, columns = config.grid
        self.patch_embed = PatchEmbed(config.encoder)
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns, width))
        self.blocks = nn.ModuleList(Block(config.encoder) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(width)
        self.query_embed = nn.Embedding(config.queries, width)
        self.anchors = nn.Parameter(spread_anchors(config.queries))
        self.query_position = MLP(8 * FREQUENCIES, width, width)
        self.box_bias = nn.ModuleList(MLP(2, width // 4, config.heads) for _ in range(2))
        self.decoder = nn.ModuleList(
            DecoderLayer(width, config.heads, config.decoder_mlp_width)
            for _ in range(config.decoder_layers)
        )
        self.class_embed = nn.Linear(width, config.num_classes)
        self.bbox_embed = MLP(width, width, 4)
        centres = torch.cat([(torch.arange(n) + 0.5) / n for n in (columns, rows)])
        self.register_buffer("centres", centres, persistent=False)
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.constant_(self.class_embed.bias, -math.log(1 / PRIOR - 1))
        last = self.bbox_embed.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Layer:
        return self.decode(self.encode(x), self.query_embed.weight, self.anchors)[-1]

    def encode(self, x: Tensor) -> Tensor:
        """Images -> the map, (B, rows · columns, D)."""
        z = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            z = block(z)
        return self.norm(z)

    def decode(
        self, memory: Tensor, queries: Tensor, anchors: Tensor, self_bias: Tensor | None = None
    ) -> list[Layer]:
        """What each layer makes of queries (Q, D) whose boxes begin as anchors (Q, 4), before the
        sigmoid. `self_bias` (Q, Q) is added to the scores of their self-attention.
        """
        objects = queries.expand(len(memory), -1, -1)
        boxes = anchors.sigmoid().expand(len(memory), -1, -1)
        layers = []
        for layer in self.decoder:
            position = self.query_position(_waves(boxes))
            bias = self._bias(boxes)
            objects = layer(objects, memory, position, self.pos_embed, self_bias, bias)
            refined = self.bbox_embed(objects) + boxes.clamp(1e-4, 1 - 1e-4).logit()
            boxes = refined.sigmoid()
            layers.append((self.class_embed(objects), boxes))
            boxes = boxes.detach()  # each layer learns from its own step
        return layers

    def _bias(self, boxes: Tensor) -> Tensor:
        """What a box's sides' distances from a position add to its score, (B, heads, Q, H · W).

        They are counted in patches.
        """
        rows, columns = self.config.grid
        centre, half = boxes[..., None, :2], boxes[..., None, 2:] / 2
        sides = torch.cat([centre - half, centre + half], dim=-2)  # (B, Q, 2, xy)
        at = self.centres
        by_x, by_y = (
            mlp(count * (sides[..., None, :, axis] - places[:, None]))  # (B, Q, count, heads)
            for axis, count, mlp, places in zip(
                (0, 1),
                (columns, rows),
                self.box_bias,
                (at[:columns], at[columns:]),
                strict=True,
            )
        )
        bias = by_y[:, :, :, None] + by_x[:, :, None]  # (B, Q, rows, columns, heads)
        return bias.flatten(2, 3).permute(0, 3, 1, 2)


def spread_anchors(count: int) -> Tensor:
    """(count, 4) boxes before the sigmoid: centres evenly over the image, each 0.4 of its sides."""
    side = math.ceil(math.sqrt(count))
    places = (torch.arange(count) * side * side / count).long()
    x, y = (places % side + 0.5) / side, (places // side + 0.5) / side
    return torch.stack([x, y, torch.full_like(x, 0.4), torch.full_like(x, 0.4)], dim=1).logit()


def _waves(boxes: Tensor) -> Tensor:
    """(B, Q, 4) -> (B, Q, 8 · FREQUENCIES): sines and cosines of the four numbers."""
    index = torch.arange(FREQUENCIES, device=boxes.device)
    angles = boxes[..., None] * (8 * math.pi * 20 ** (-index / FREQUENCIES))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(2)

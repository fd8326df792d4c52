"""The loss of set prediction: Hungarian matching, then classes and boxes of the pairs.

Groups of queries, each matched with all objects by itself, teach the decoder as many times over
(Chen et al. 2023, arXiv 2207.13085); only the first group is kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

CLASS_COST, L1_COST, GIOU_COST = 2.0, 5.0, 2.0
"""Of a pair, in the matching; the last two are the weights in the loss, too."""
ALPHA, GAMMA = 0.75, 2.0
"""Of the varifocal loss (Zhang et al. 2021, arXiv 2008.13367)."""


class Truth(NamedTuple):
    """Objects of a batch, of images with fewer than the most filled up."""

    boxes: Tensor
    """(B, G, 4) centre, width and height, 0 to 1."""
    classes: Tensor
    """(B, G) indices."""
    counts: Tensor
    """(B,) how many of them there are."""


def set_loss(logits: Tensor, boxes: Tensor, truth: Truth, groups: int) -> Tensor:
    """The loss of one layer's logits (B, groups · Q, classes) and boxes (B, groups · Q, 4)."""
    return pair_loss(logits, boxes, truth, matched(logits, boxes, truth, groups))


def dense_loss(logits: Tensor, boxes: Tensor, truth: Truth, centres: Tensor) -> Tensor:
    """That of every position of a map, (B, N, …), at `centres` (N, 2), x and y.

    A position is of the last drawn of the objects in whose boxes it lies: a second, denser
    supervision of the encoder, dropped after (Zong et al. 2023, arXiv 2211.12860).
    """
    low, high = truth.boxes[..., :2] - truth.boxes[..., 2:] / 2, truth.boxes[..., 2:] / 2
    high = truth.boxes[..., :2] + high
    inside = ((centres[:, None] > low[:, None]) & (centres[:, None] < high[:, None])).all(dim=3)
    inside &= (torch.arange(inside.shape[2]) < truth.counts[:, None])[:, None]  # (B, N, G)
    place = torch.arange(1, inside.shape[2] + 1)
    owner = (inside * place).amax(dim=2)  # from 1
    batch, position = torch.nonzero(owner, as_tuple=True)
    return pair_loss(logits, boxes, truth, (batch, position, owner[batch, position] - 1))


def pair_loss(
    logits: Tensor, boxes: Tensor, truth: Truth, pairs: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Of pairs of image, query and object: overlaps as scores, and boxes; the rest shows none."""
    batch, queries, objects = pairs
    got, want = boxes[batch, queries], truth.boxes[batch, objects]
    giou, iou = box_overlaps(got, want)
    scores = logits.detach().sigmoid()
    target = torch.zeros_like(logits)  # of a pair the overlap, so that scores rank boxes
    target[batch, queries, truth.classes[batch, objects]] = iou.detach().clamp(min=0)
    weight = torch.where(target > 0, target, ALPHA * scores**GAMMA)
    per_class = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    per_box = L1_COST * (got - want).abs().sum() + GIOU_COST * (1 - giou).sum()
    return (per_class + per_box) / max(1, len(batch))


@torch.no_grad()
def matched(
    logits: Tensor, boxes: Tensor, truth: Truth, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The image, the query and the object of each pair, the cheapest set of them in each group."""
    size = logits.shape[1] // groups
    scores = logits.sigmoid().gather(  # (B, queries, G)
        2, truth.classes[:, None].expand(-1, logits.shape[1], -1)
    )
    giou, _ = box_overlaps(boxes[:, :, None], truth.boxes[:, None])
    distance = (boxes[:, :, None] - truth.boxes[:, None]).abs().sum(dim=3)
    cost = (L1_COST * distance - CLASS_COST * scores - GIOU_COST * giou).numpy()
    pairs = []
    for image, count in enumerate(truth.counts.tolist()):
        for start in range(0, logits.shape[1], size):
            queries, objects = linear_sum_assignment(cost[image, start : start + size, :count])
            pairs.append(np.stack([np.full_like(queries, image), queries + start, objects]))
    batch, queries, objects = torch.from_numpy(np.concatenate(pairs, axis=1))
    return batch, queries, objects


def box_overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Generalized IoU (Rezatofighi et al. 2019) and IoU of boxes (…, 4) by centre and size."""
    low_1, high_1 = first[..., :2] - first[..., 2:] / 2, first[..., :2] + first[..., 2:] / 2
    low_2, high_2 = second[..., :2] - second[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2
    shared = (torch.minimum(high_1, high_2) - torch.maximum(low_1, low_2)).clamp(min=0).prod(-1)
    hull = (torch.maximum(high_1, high_2) - torch.minimum(low_1, low_2)).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared
    iou = shared / union.clamp(min=1e-9)
    return iou - (hull - union) / hull.clamp(min=1e-9), iou

"""How the embedded detector was trained: DAB-DETR on a small ViT, on the shapes we draw.

python -m examples.references.shapes_detr --output FILE     (half an hour on two cores)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from examples.references.set_prediction import Truth, dense_loss, set_loss
from examples.references.training import fit, main
from vitedge.core.detections import rows
from vitedge.data.open import open_images
from vitedge.data.shapes import HELD_OUT, SIDE_PX, TRAINING, draw_objects
from vitedge.measure.accuracy.detection_score import MeanAveragePrecision
from vitedge.models.sources import ModelRequest, resolve
from vitedge.models.zoo import ZOO
from vitedge.models.zoo.dab_detr import DABDETR, PRIOR, Layer, spread_anchors
from vitedge.models.zoo.detr import MLP

DETECTOR = ZOO["shapes-detr"]
SCENES = (*TRAINING, *range(HELD_OUT.stop, HELD_OUT.stop + 3000))
"""What it is trained on."""
GROUPS = 3
"""Of queries, in training."""
MOST = 4
"""Objects of a scene."""


def load(indices: Sequence[int]) -> tuple[Tensor, Truth]:
    """Images (n, 3, 64, 64) uint8, and what is on them."""
    images, seen = zip(*map(draw_objects, indices), strict=True)
    corners, classes = torch.zeros(len(seen), MOST, 4), torch.zeros(len(seen), MOST).long()
    for place, objects in enumerate(seen):
        count = len(objects.boxes)
        corners[place, :count] = torch.from_numpy(objects.boxes / SIDE_PX)
        classes[place, :count] = torch.from_numpy(objects.classes)
    low, high = corners.split(2, dim=2)
    boxes = torch.cat([(low + high) / 2, high - low], dim=2)
    counts = torch.tensor([len(objects.boxes) for objects in seen])
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # NHWC -> NCHW
    return pixels, Truth(boxes, classes, counts)


class Pupil(nn.Module):
    """The detector with what helps it learn: further groups of queries, and a head on its map."""

    def __init__(self, model: DABDETR) -> None:
        super().__init__()
        self.model = model
        config, further = model.config, GROUPS - 1
        rows, columns = config.grid
        self.queries = nn.Parameter(torch.randn(further * config.queries, config.width))
        anchors = spread_anchors(config.queries).repeat(further, 1)
        self.anchors = nn.Parameter(anchors + 0.1 * torch.randn_like(anchors))
        self.class_embed = nn.Linear(config.width, config.num_classes)
        nn.init.constant_(self.class_embed.bias, float(torch.tensor(PRIOR).logit()))
        self.bbox_embed = MLP(config.width, config.width, 4)
        x, y = model.centres[:columns], model.centres[columns:]
        self.centres = torch.stack([x.repeat(rows), y.repeat_interleave(columns)], dim=1)
        self.dense_anchors = torch.cat([self.centres, torch.full_like(self.centres, 0.4)], 1)
        group = torch.arange(GROUPS).repeat_interleave(config.queries)
        apart = group[:, None] != group  # groups do not see one another
        self.self_bias = torch.zeros(apart.shape).masked_fill(apart, -torch.inf)

    def forward(self, images: Tensor) -> tuple[Layer, list[Layer]]:
        memory = self.model.encode(images)
        boxes = (self.bbox_embed(memory) + self.dense_anchors.logit()).sigmoid()
        queries = torch.cat([self.model.query_embed.weight, self.queries])
        anchors = torch.cat([self.model.anchors, self.anchors])
        layers = self.model.decode(memory, queries, anchors, self.self_bias)
        return (self.class_embed(memory), boxes), layers


def take_encoder(model: DABDETR) -> None:
    """Begin with the ViT of the embedded SETR, as DETR does with ImageNet's ResNet."""
    setr = resolve(ModelRequest("shapes-setr")).content
    assert isinstance(setr, nn.Module)
    state = {name.replace("norms.0", "norm"): t for name, t in setr.state_dict().items()}
    own = model.state_dict()
    model.load_state_dict(own | {name: t for name, t in state.items() if name in own})


def train(
    model: nn.Module, epochs: int, random: torch.Generator, indices: Sequence[int] = SCENES
) -> None:
    """Fit `model` to the training scenes, each batch turned and mirrored its own way."""
    assert isinstance(model, DABDETR)
    take_encoder(model)
    images, truth = load(indices)
    pupil = Pupil(model)

    def loss(chosen: Tensor) -> Tensor:
        flips = torch.randint(2, (3,), generator=random).tolist()
        pixels, boxes = mirrored(images[chosen].float() / 127.5 - 1, truth.boxes[chosen], flips)
        objects = Truth(boxes, truth.classes[chosen], truth.counts[chosen])
        dense, layers = pupil(pixels)
        total = dense_loss(*dense, objects, pupil.centres)
        for layer in layers:
            total = total + set_loss(*layer, objects, GROUPS)
        return total

    fit(pupil, loss, len(images), epochs, batch=12, max_lr=1.5e-3, random=random)


def mirrored(images: Tensor, boxes: Tensor, flips: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images (n, 3, H, W) and boxes (n, G, 4) mirrored in x, in y and along the diagonal."""
    x, y, width, height = boxes.unbind(2)
    if flips[0]:
        images, x = images.flip(3), 1 - x
    if flips[1]:
        images, y = images.flip(2), 1 - y
    if flips[2]:
        images, x, y, width, height = images.mT, y, x, height, width
    return images.contiguous(), torch.stack([x, y, width, height], dim=2)


@torch.inference_mode()
def average_precision(model: nn.Module) -> tuple[float, float]:
    """COCO's mAP of `model` on the held-out scenes, over all overlaps and at 0.50, 0 to 1."""
    rule = DETECTOR.detection
    assert rule is not None
    held_out = open_images(
        "shapes", "evaluation", DETECTOR.preprocess, DETECTOR.labels, "detection"
    )
    score = MeanAveragePrecision()
    for batch in held_out.batches(100):
        pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2)  # NHWC -> NCHW
        outputs = [output.numpy() for output in model(pixels.float() / 127.5 - 1)]
        score.add(batch.labels, rows(outputs, rule), None)
    result = score.result(confidence=0.95)
    return result.value.artifact, result.also["map_50"].artifact


def measure(model: nn.Module) -> str:
    """What is printed of a trained model."""
    mean, at_50 = average_precision(model)
    return f"held-out mAP: {mean:.1%}, at an overlap of 0.50: {at_50:.1%}"


if __name__ == "__main__":
    main("shapes-detr", 20, train, measure)

"""How the embedded segmentation reference was trained: a small VT-FPN on the shapes we draw.

python -m examples.references.shapes --output shapes.safetensors     (minutes on two cores)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.references.training import fit, main
from vitedge.data.shapes import HELD_OUT, TRAINING, draw
from vitedge.measure.accuracy.metrics import MeanIoU


def load(indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 64, 64) float32 in -1..1 and masks (n, 64, 64) of class indices, int64."""
    images, masks = zip(*map(draw, indices), strict=True)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # NHWC -> NCHW
    return pixels.float() / 127.5 - 1, torch.from_numpy(np.stack(masks)).long()


def train(
    model: nn.Module,
    epochs: int,
    random: torch.Generator,
    indices: Sequence[int] = TRAINING,
    max_lr: float = 1.2e-2,
) -> None:
    """Fit `model` to the training shapes, each batch turned and mirrored its own way."""
    images, masks = load(indices)
    # convolutions on a CPU take half the time so
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(chosen: Tensor) -> Tensor:
        turns, mirror = torch.randint(4, (2,), generator=random).tolist()
        image, mask = images[chosen].rot90(turns, (2, 3)), masks[chosen].rot90(turns, (1, 2))
        if mirror % 2:
            image, mask = image.flip(3), mask.flip(2)
        logits = model(image.contiguous(memory_format=torch.channels_last))
        logits = F.interpolate(logits, mask.shape[1:], mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, mask)

    fit(model, loss, len(images), epochs, batch=32, max_lr=max_lr, random=random)


@torch.inference_mode()
def miou(model: nn.Module) -> tuple[float, float]:
    """Mean IoU and pixel accuracy of `model` on the held-out shapes, 0 to 1."""
    images, masks = load(HELD_OUT)
    score = MeanIoU()
    for some, wanted in zip(torch.split(images, 100), torch.split(masks, 100), strict=True):
        score.add(wanted.numpy(), model(some).numpy(), None)
    result = score.result(confidence=0.95)
    return result.value.artifact, result.also["pixel_accuracy"].artifact


def measure(model: nn.Module) -> str:
    """What is printed of a trained model."""
    mean, pixels = miou(model)
    return f"held-out mIoU: {mean:.2%}, pixel accuracy: {pixels:.2%}"


if __name__ == "__main__":
    main("shapes", 12, train, measure)

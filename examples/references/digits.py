"""How the embedded reference was trained: a small ViT on scikit-learn's real 8×8 digits.

python -m examples.references.digits --output digits.safetensors     (minutes on two cores)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.references.training import fit, main
from vitedge.data.open import Role, open_images
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]


def load(role: Role) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 32, 32) float32 in -1..1 and labels (n,) of one side of the split."""
    digits = open_images("digits", role, DIGITS.preprocess, DIGITS.labels)
    (batch,) = digits.batches(len(digits))
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)  # NHWC -> NCHW
    return images.float() / 127.5 - 1, torch.from_numpy(batch.labels)


def jitter(images: Tensor, random: torch.Generator) -> Tensor:
    """Rotate by ±10°, scale by ±10%, shear by ±0.1 and shift by ±2 px, each image its own way."""
    angle, scale, shear, dx, dy = torch.rand(5, len(images), generator=random) * 2 - 1
    angle, scale, shear, dx, dy = angle * 0.175, 1 + scale * 0.1, shear * 0.1, dx / 8, dy / 8
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos, shear - sin, dx, sin, cos, dy], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def train(model: nn.Module, epochs: int, random: torch.Generator) -> None:
    """Fit `model` to the training split; nothing is chosen on, or even shown, the held-out one."""
    images, labels = load("calibration")

    def loss(chosen: Tensor) -> Tensor:
        logits = model(jitter(images[chosen], random))
        return F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)

    fit(model, loss, len(images), epochs, batch=64, max_lr=2e-3, random=random)


@torch.inference_mode()
def top1(model: nn.Module) -> float:
    """Share of the held-out images that `model` gets right, 0 to 1."""
    images, labels = load("evaluation")
    return float((model(images).argmax(dim=1) == labels).float().mean())


if __name__ == "__main__":
    main("digits", 80, train, lambda model: f"held-out top-1: {top1(model):.2%}")

"""How the embedded reference was trained: a small ViT on scikit-learn's real 8×8 digits.

python -m vitedge.models.digits --output digits.safetensors     (minutes on two cores)
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.data import Role, open_images
from vitedge.models.vit import VisionTransformer
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]
BATCH = 64


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


def train(model: nn.Module, epochs: int, random: torch.Generator, progress: Progress) -> None:
    """Fit `model` to the training split; nothing is chosen on, or even shown, the held-out one."""
    images, labels = load("calibration")
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    bar = progress.add_task("training", total=steps)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(images), generator=random), BATCH):
            logits = model(jitter(images[chosen], random))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(bar)


@torch.inference_mode()
def top1(model: nn.Module) -> float:
    """Share of the held-out images that `model` gets right, 0 to 1."""
    images, labels = load("evaluation")
    return float((model(images).argmax(dim=1) == labels).float().mean())


def write(model: nn.Module, path: Path) -> None:
    """Save the state dict under timm's names; a killed run leaves no half-written file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(model.state_dict()))
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vitedge.models.digits", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--epochs", type=int, default=80, metavar="N")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    model = VisionTransformer(DIGITS.config)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        train(model, args.epochs, torch.Generator().manual_seed(args.seed), progress)
    write(model, args.output)
    print(f"held-out top-1: {top1(model.eval()):.2%}")


if __name__ == "__main__":
    main()

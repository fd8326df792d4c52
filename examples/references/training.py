"""What the recipes of the embedded references share: one schedule, one way to write weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save
from torch import Tensor, nn

from vitedge.models.zoo import ZOO
from vitedge.models.zoo.build import build


def fit(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    *,
    batch: int,
    max_lr: float,
    random: torch.Generator,
) -> None:
    """Minimise `loss`, of a batch's indices (n,) into `count` images: AdamW, one learning cycle."""
    steps = epochs * -(-count // batch)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, steps, pct_start=0.1)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("training", total=steps)
        for _ in range(epochs):
            for chosen in torch.split(torch.randperm(count, generator=random), batch):
                optimizer.zero_grad()
                loss(chosen).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                progress.advance(bar)


def main(
    name: str,
    epochs: int,
    train: Callable[[nn.Module, int, torch.Generator], None],
    measure: Callable[[nn.Module], str],
) -> None:
    """`python -m examples.references.<name>`: train a zoo model, write it, print its measure."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.references.{name.replace('-', '_')}")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--epochs", type=int, default=epochs, metavar="N")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    model = build(ZOO[name].config)
    train(model, args.epochs, torch.Generator().manual_seed(args.seed))
    write(model, args.output)
    print(measure(model.eval()))


def write(model: nn.Module, path: Path) -> None:
    """Save the state dict; a killed run leaves no half-written file."""
    partial = path.with_name(path.name + ".partial")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    partial.write_bytes(save(state))
    os.replace(partial, path)

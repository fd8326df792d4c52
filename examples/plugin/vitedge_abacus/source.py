"""A source of models: `patches:16` is a classifier of means of 16 × 16 patches."""

from __future__ import annotations

import dataclasses

from vitedge.core.errors import InputError
from vitedge.core.spec import Preprocess
from vitedge.models.sources.base import ModelRequest, ReferenceModel

SIDE_PX, CLASSES = 64, 10


def load(name: str, request: ModelRequest) -> ReferenceModel:
    """The model of the patch size `name`, pixels. Raises InputError."""
    import torch
    from torch import nn

    from vitedge.models.sources import module

    if not name.isdigit() or not int(name) or SIDE_PX % int(name):
        raise InputError(f"patches:{name} is no patch size", fix=f"take a divisor of {SIDE_PX}")
    torch.manual_seed(0)
    tokens = (SIDE_PX // int(name)) ** 2
    layers = (nn.AvgPool2d(int(name)), nn.Flatten(), nn.Linear(3 * tokens, 32), nn.ReLU())
    model = nn.Sequential(*layers, nn.Linear(32, CLASSES))
    asked = dataclasses.replace(
        request,
        model=model,
        name=f"patches{name}",
        preprocess=request.preprocess or Preprocess(height=SIDE_PX, width=SIDE_PX),
        task=request.task or "classification",
    )
    return module.load(model, asked)

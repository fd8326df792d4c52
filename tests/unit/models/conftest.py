"""What every comparison of a model with its peer needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def trained() -> Callable[[Any], Any]:
    """Fill a module as training would: no tensor is zero, one or like another."""
    import torch

    @torch.no_grad()
    def fill(module: Any) -> Any:
        torch.manual_seed(0)
        for name, parameter in module.named_parameters():
            parameter.normal_(mean=float("norm" in name or "ln" in name), std=0.1)
        return module.eval()

    return fill


@pytest.fixture(scope="session")
def loaded() -> Callable[[Path, Any], Any]:
    """Our model of a config, or of as many classes as the weights file has."""
    from vitedge.models.sources import checkpoints
    from vitedge.models.zoo.build import build

    def load(path: Path, config: Any) -> Any:
        state = checkpoints.read(path)
        model = build(checkpoints.adapt(config, state))
        checkpoints.load_into(model, state, path)
        return model.eval()

    return load


@pytest.fixture(scope="session")
def assert_parity() -> Callable[[Any, Any, Any], None]:
    """Demand the same outputs, within 1e-5 of the largest."""
    import torch

    @torch.inference_mode()
    def compare(ours: Any, theirs: Callable[[Any], Any], image_px: int | tuple[int, int]) -> None:
        height, width = (image_px, image_px) if isinstance(image_px, int) else image_px
        images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
        got, want = ours(images), theirs(images)
        assert got.shape == want.shape
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()

    return compare

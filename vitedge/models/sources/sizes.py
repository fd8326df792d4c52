"""Which sizes of image a model takes: patches, strides and windows decide, so they are tried."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from vitedge.core.errors import InputError, VitedgeError, error_line

_STEPS = (8, 14, 16, 28, 32, 64, 128, 224, 256)
"""Multiples of which families take: patches, strides, windows, pixels."""
_SECONDS = 20.0
"""For trying sizes, before an error is reported."""

Size: TypeAlias = tuple[int, int]
"""Height and width, pixels."""
Trial: TypeAlias = Callable[[Size], object]
"""Runs a new model on a black image of that size: some change when they see one."""


def black(size: Size) -> Tensor:
    """An image (1, 3, H, W)."""
    return torch.zeros(1, 3, *size)


def fix(sizes: str) -> str:
    """What to do where `sizes` would be taken."""
    return f"it takes {sizes}: set height and width with `preprocess=FILE.toml` (or .json)"


def taken(trial: Trial, size: Size, own: Size | None = None) -> str:
    """Two sizes near `size` that a model takes, `224×224 or 256×256`; or fewer.

    `own` is what it says itself. Each is tried on shapes alone.
    """
    height, width = size
    sizes = {own or size, *((height * k, width * k) for k in (2, 4))}
    for step in _STEPS:
        up, down = ([-(-side // step) for side in size], [side // step for side in size])
        sizes.update((max(1, rows) * step, max(1, columns) * step) for rows, columns in (up, down))
    takes: list[str] = []
    deadline = time.monotonic() + _SECONDS
    for other in sorted(sizes, key=lambda other: abs(other[0] - height) + abs(other[1] - width)):
        if len(takes) == 2 or time.monotonic() > deadline:
            break
        if _runs(trial, other):
            takes.append(f"{other[0]}×{other[1]}")
    return " or ".join(takes)


@contextlib.contextmanager
def told(trial: Trial, size: Size | None, source: str) -> Iterator[None]:
    """Where a size is why a model cannot be made or run, raise InputError with those that do."""
    try:
        yield
    except (ImportError, VitedgeError):
        raise
    except Exception as error:  # whatever a module raises
        if size is None or _runs(trial, size):
            raise
        others = taken(trial, size)
        raise InputError(
            f"{source} does not run on an image of {size[0]}×{size[1]}: {error_line(error)}",
            fix=fix(others) if others else "set another height and width in `preprocess`",
        ) from error


def _runs(trial: Trial, size: Size) -> bool:
    """Whether a trial goes through, on shapes alone."""
    with contextlib.suppress(Exception), torch.device("meta"), torch.no_grad():
        trial(size)
        return True
    return False

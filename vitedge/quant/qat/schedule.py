"""The learning rate of every step, a function of the step alone: nothing of it to be saved."""

from __future__ import annotations

import math


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the highest rate at `step` of `steps`: a linear rise, then half a cosine to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

"""What a gate holds artifacts to."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from vitedge.core.spec import Level, Spec

Amount = Annotated[float, msgspec.Meta(ge=0)]
Ratio = Annotated[float, msgspec.Meta(gt=0)]
Confidence = Annotated[float, msgspec.Meta(gt=0.5, lt=1)]

CONFIDENCE = 0.95


class Limits(Spec, frozen=True, kw_only=True):
    """One limit of each kind; None: no limit."""

    max_drop_pp: Amount | None = None
    """Accuracy (top-1, mIoU, k-NN agreement) lost against FP32 and the baseline, points."""
    min_speedup: Ratio | None = None
    """p50 of FP32, timed in turn with it, over its own."""
    max_p90_ms: Ratio | None = None
    max_slowdown: Ratio | None = None
    """p50 over FP32's, divided by the same of the baseline."""
    max_size_mb: Ratio | None = None
    """Of the files a runtime loads, 10⁶ bytes."""
    max_rss_mb: Ratio | None = None
    """Peak resident memory, 10⁶ bytes."""
    min_agreement: Level | None = None
    """Share of images (pixels) on which artifact and FP32 choose the same class."""
    min_sqnr_db: float | None = None
    min_top1: Level | None = None
    min_miou: Level | None = None


LimitsT = TypeVar("LimitsT", bound=Limits)


def override(limits: LimitsT, overrides: Limits) -> LimitsT:
    """`limits`, with those that `by` sets in their place."""
    return msgspec.structs.replace(limits, **active_limits(overrides))


def active_limits(limits: Limits) -> dict[str, float]:
    """Those that are set."""
    names = (field.name for field in msgspec.structs.fields(Limits))
    return {name: value for name in names if (value := getattr(limits, name)) is not None}

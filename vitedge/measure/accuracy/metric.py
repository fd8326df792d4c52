"""What every metric takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vitedge.core.report import Compared, Metric

Outputs = NDArray[np.float32]


class MetricResult(NamedTuple):
    """What a score found, on the 0-1 scale; FP32's part is None where FP32 was not run."""

    metric: Metric
    value: Compared
    drop_ci_pp: tuple[float, float] | None
    agreement: float | None
    also: dict[str, Compared]
    fp32: NDArray[Any] | None
    """What each image adds, as `evidence.PerImage` has it."""
    artifact: NDArray[Any]
    lost: int | None = None
    """Images that FP32 alone has right, where the metric counts them and FP32 was run."""
    gained: int | None = None
    """Images that the artifact alone has right, likewise."""
    labels: NDArray[Any] | None = None
    """What there was to be found, as `evidence.PerImage` has it, of detectors alone."""


class Score(Protocol):
    """Takes outputs as they come and keeps what the metric needs of them.

    What it finds is the same to the bit however the images are cut into batches and parts.
    """

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        """Take the labels and both models' outputs for the same images."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was kept, to be joined elsewhere."""
        ...

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Take images that come after those taken, as `arrays` gives them."""
        ...

    def result(self, confidence: float) -> MetricResult:
        """The metric over everything taken."""
        ...


def compared(fp32: float | None, artifact: float) -> Compared:
    """A metric of both models, and the points lost."""
    drop = None if fp32 is None else 100 * (fp32 - artifact)
    return Compared(fp32=fp32, artifact=artifact, drop_pp=drop)

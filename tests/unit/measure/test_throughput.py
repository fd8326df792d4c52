"""Throughput adds up over streams."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.runtime import TensorSpec
from vitedge.measure.latency.throughput import Setting, throughput

MS = 1e-3


class FixedTime:
    """A device that takes 2 ms a run and 1 ms an image on top, and no CPU."""

    inputs = (TensorSpec("x", (None, 1), "float32"),)
    outputs = (TensorSpec("y", (None, 1), "float32"),)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        images = feed["x"]
        time.sleep((2 + len(images)) * MS)
        return {"y": images}


def images(count: int) -> dict[str, NDArray[np.float32]]:
    return {"x": np.arange(count, dtype=np.float32)[:, None]}


def test_batches_and_streams_raise_throughput() -> None:
    settings = [
        Setting((FixedTime(),), images(1), 1),
        Setting((FixedTime(),), images(4), 4),
        Setting((FixedTime(), FixedTime()), images(1), 1),
    ]
    seen: list[float] = []
    one, four, two = throughput(settings, 0.6, on_progress=seen.append)
    assert four.images_per_s > 1.5 * one.images_per_s  # 4 images in 6 ms, not in 12
    assert two.images_per_s > 1.5 * one.images_per_s
    for rate in (one, four, two):
        low, high = rate.interval
        assert 0 < low < rate.images_per_s < high
        assert rate.images_per_s <= 4 / (6 * MS)
    assert seen == sorted(seen) and seen[-1] == 1

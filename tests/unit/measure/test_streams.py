"""Throughput adds up over streams, and a query is all of its images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vitedge.core.runtime import TensorSpec
from vitedge.measure.latency.streams import Query, Setting, throughput

MS = 1e-3


class FixedTime:
    """A device that takes 2 ms a run and 1 ms an image on top, and no CPU."""

    inputs = (TensorSpec("x", (None, 1), "float32"),)
    outputs = (TensorSpec("y", (None, 1), "float32"),)

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.sizes: list[int] = []

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        images = feed["x"]
        self.seen += images[:, 0].tolist()
        self.sizes.append(len(images))
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


@pytest.mark.parametrize(("count", "batch", "sizes"), [(8, 8, [8]), (8, 3, [3, 3, 2])])
def test_a_query_runs_every_image_once(count: int, batch: int, sizes: list[int]) -> None:
    device = FixedTime()
    with ThreadPoolExecutor(1) as pool:
        Query([device], batch, pool).run(images(count))
    assert device.seen == list(range(count))
    assert device.sizes == sizes


def test_a_query_is_shared_among_streams() -> None:
    devices = [FixedTime(), FixedTime()]
    with ThreadPoolExecutor(2) as pool:
        Query(devices, 2, pool).run(images(7))
    assert sorted(devices[0].seen + devices[1].seen) == list(range(7))
    assert all(device.seen for device in devices)

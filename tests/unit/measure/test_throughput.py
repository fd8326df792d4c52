"""Throughput adds up over streams."""

import time

import numpy as np

from vitedge.core.runtime import TensorSpec
from vitedge.measure.latency.throughput import Setting, throughput

STEP_S = 4e-3
"""So long that a busy machine wakes a sleeper late by a small part of it."""


class FixedTime:
    """A processor that takes two steps a run and a step an image on top, and no CPU."""

    inputs = (TensorSpec("x", (None, 1), "float32"),)
    outputs = (TensorSpec("y", (None, 1), "float32"),)

    def run(self, feed):
        images = feed["x"]
        time.sleep((2 + len(images)) * STEP_S)
        return {"y": images}


def images(count):
    return {"x": np.arange(count, dtype=np.float32)[:, None]}


def test_batches_and_streams_raise_throughput():
    settings = [
        Setting((FixedTime(),), images(1), 1, 1),
        Setting((FixedTime(),), images(4), 4, 1),
        Setting((FixedTime(), FixedTime()), images(1), 1, 1),
    ]
    seen = []
    single, four, two = throughput(settings, 1.2, on_progress=seen.append)
    assert four.images_per_s > 1.5 * single.images_per_s  # 4 images in 6 steps, not in 12
    assert two.images_per_s > 1.5 * single.images_per_s
    for rate in (single, four, two):
        low, high = rate.images_per_s_ci
        assert 0 < low < rate.images_per_s < high
        assert rate.images_per_s <= 4 / (6 * STEP_S)
    assert seen == sorted(seen) and seen[-1] == 1

"""Queueing follows theory: arrivals are Poisson, service is fixed, and those who wait are late."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.runtime import TensorSpec
from vitedge.measure.latency.server import arrivals, serve

FEED = {"x": np.zeros((1, 1), np.float32)}


class FixedTime:
    """A device that takes the same time for every run, and no CPU."""

    inputs = (TensorSpec("x", (1, 1), "float32"),)
    outputs = (TensorSpec("y", (1, 1), "float32"),)

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self.threads: set[int] = set()

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.threads.add(threading.get_ident())
        time.sleep(self._service_s)
        return {"y": np.zeros((1, 1), np.float32)}


def fifo(due_s: NDArray[np.float64], service_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latency of each arrival at one server, first come, first served (Lindley)."""
    free, latency = 0.0, []
    for due, service in zip(due_s, service_s, strict=True):
        free = max(due, free) + service
        latency.append(free - due)
    return np.array(latency)


def test_latency_under_load_is_that_of_a_queue() -> None:
    served = serve([FixedTime(0.004)], FEED, 150, 0.8, seed=0, on_progress=lambda done: None)
    assert served.overloaded == (served.utilization >= 1 or served.unserved > 0)
    expected = 1e3 * fifo(served.due_s, served.service_ms / 1e3)
    # the stream itself takes a little time between two runs: never less than theory says
    assert np.all(served.latency_ms >= expected - 0.01)
    assert np.median(served.latency_ms) >= np.median(served.service_ms)
    assert np.corrcoef(served.latency_ms, expected)[0, 1] > 0.8
    assert served.utilization == pytest.approx(served.service_ms.mean() * 0.15)


def test_arrivals_at_a_fixed_service_time_wait_as_pollaczek_and_khinchine_say() -> None:
    service_s, rate = 0.001, 700.0
    waits = fifo(arrivals(rate, 200, 0), np.full(len(arrivals(rate, 200, 0)), service_s))
    load = rate * service_s
    assert waits.mean() == pytest.approx(service_s * (1 + load / (2 * (1 - load))), rel=0.05)


def test_twice_the_streams_carry_the_load_that_one_cannot() -> None:
    one = serve([FixedTime(0.01)], FEED, 150, 0.4, seed=1, on_progress=lambda done: None)
    assert one.overloaded and one.utilization > 1
    devices = [FixedTime(0.01) for _ in range(4)]
    four = serve(devices, FEED, 150, 0.4, seed=1, on_progress=lambda done: None)
    assert four.utilization < one.utilization
    assert np.median(four.latency_ms) < np.median(one.latency_ms)
    assert all(device.threads for device in devices)


def test_a_hopeless_rate_ends_and_counts_those_never_served() -> None:
    served = serve([FixedTime(0.02)], FEED, 1000, 0.1, seed=0, on_progress=lambda done: None)
    assert served.overloaded
    assert served.unserved + len(served.latency_ms) == len(arrivals(1000, 0.1, 0))
    assert served.unserved > len(served.latency_ms)


def test_arrivals_are_poisson_and_the_same_for_a_seed() -> None:
    due = arrivals(1000, 20, seed=3)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    assert due[-1] < 20
    np.testing.assert_array_equal(due, arrivals(1000, 20, seed=3))


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (0, "no rate"),
        (-1, "no rate"),
        (float("nan"), "no rate"),
        (0.01, "no image"),
        (1e9, "brings 1e"),
    ],
)
def test_a_rate_that_is_none(rate: float, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        arrivals(rate, 1, 0)
    assert caught.value.fix

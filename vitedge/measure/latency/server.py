"""MLPerf's Server: images arrive when they like, and the one that waits is late, too."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.runtime import Session
from vitedge.measure.latency.clock import Feed, check_duration, no_gc, warm_up

SPIN_S = 2e-4
"""Before an arrival a stream stops sleeping: the kernel wakes it a little late."""
PATIENCE = 2.0
"""Times the duration after which those still waiting are sent away."""
MOST_ARRIVALS = 1_000_000


@dataclass(frozen=True, eq=False)
class Served:
    """What became of the images that arrived."""

    due_s: NDArray[np.float64]
    """(n,) when those served arrived, seconds."""
    latency_ms: NDArray[np.float64]
    """(n,) from arrival to result."""
    service_ms: NDArray[np.float64]
    """(n,) of the run alone."""
    unserved: int
    """Still waiting when time was up."""
    elapsed_s: float
    """From the beginning to the last result."""
    utilization: float
    """Mean service time · rate / streams."""

    @property
    def overloaded(self) -> bool:
        """The queue grew for as long as images came."""
        return self.utilization >= 1 or self.unserved > 0


def serve(
    streams: Sequence[Session],
    feed: Feed,
    rate_per_s: float,
    duration_s: float,
    *,
    seed: int,
    on_progress: Callable[[float], None],
) -> Served:
    """Run `feed` whenever one arrives, first come, first served, by whichever stream is free.

    Arrivals are a Poisson process over `duration_s` seconds (MLPerf Inference, Server). Latency
    counts from when an image was due, not from when a stream took it, so that a stream that falls
    behind cannot hide it (coordinated omission).

    Args:
        streams: sessions, each with a thread of its own here.
        feed: what each arrival brings.
        rate_per_s: mean arrivals a second.
        duration_s: how long they come; what waits after twice as long is not served.
        seed: of the arrivals.
        on_progress: called with the fraction done, 0-1.

    Raises:
        InputError: no duration or rate, nothing arrives in it, or too much does.
    """
    check_duration(duration_s)
    due_s = arrivals(rate_per_s, duration_s, seed)
    queue = _Queue(len(due_s))
    latency, service = np.full(len(due_s), np.nan), np.full(len(due_s), np.nan)
    with no_gc(), ThreadPoolExecutor(len(streams)) as pool:
        list(pool.map(lambda stream: warm_up(stream, feed), streams))
        start = perf_counter()

        def work(stream: Session) -> None:
            while (i := queue.take()) is not None:
                due = start + due_s[i]
                _sleep_until(due)
                begun = perf_counter()
                if begun - start > PATIENCE * duration_s:
                    return
                stream.run(feed)
                done = perf_counter()
                latency[i], service[i] = done - due, done - begun
                on_progress(min(1.0, (done - start) / duration_s))

        list(pool.map(work, streams))
        elapsed_s = perf_counter() - start
    served = ~np.isnan(latency)
    service_s = float(service[served].mean())
    return Served(
        due_s=due_s[served],
        latency_ms=latency[served] * 1e3,
        service_ms=service[served] * 1e3,
        unserved=int(np.count_nonzero(~served)),
        elapsed_s=elapsed_s,
        utilization=service_s * rate_per_s / len(streams),
    )


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> NDArray[np.float64]:
    """When images arrive within `duration_s`, seconds, ascending. Raises InputError."""
    if not 0 < rate_per_s < math.inf:
        raise InputError(f"--rate {rate_per_s:g} is no rate", fix="pass images a second, above 0")
    expected = rate_per_s * duration_s
    if expected > MOST_ARRIVALS:
        raise InputError(
            f"--rate {rate_per_s:g} brings {expected:.2g} images in {duration_s:g} s",
            fix=f"pass a lower --rate or a shorter --duration: {MOST_ARRIVALS:,} are enough",
        )
    most = int(expected + 10 * math.sqrt(expected) + 10)
    due_s = np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, most))
    due_s = due_s[due_s < duration_s]
    if not due_s.size:
        raise InputError(
            f"--rate {rate_per_s:g} brings no image in {duration_s:g} s",
            fix="pass a higher --rate, or a longer --duration",
        )
    return due_s


class _Queue:
    """Numbers of images in order of arrival, each given to one stream."""

    def __init__(self, count: int) -> None:
        self._numbers, self._lock = iter(range(count)), threading.Lock()

    def take(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)


def _sleep_until(at: float) -> None:
    """Wait for a point in time of `perf_counter`; gone already: return at once."""
    while (left := at - perf_counter()) > 0:
        sleep(left - SPIN_S if left > SPIN_S else 0)  # 0: let other streams have the lock

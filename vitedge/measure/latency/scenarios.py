"""The scenarios of one artifact beside SingleStream, in MLPerf's terms, and its sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np

from vitedge.core import measurements
from vitedge.core.bundle import Bundle
from vitedge.core.machine import usable_cores
from vitedge.core.measurements import MultiStream, Offline, Server, Sweep, SweepPoint, Throughput
from vitedge.core.runtime import Session, runtime_of
from vitedge.measure.latency import streams as parallel
from vitedge.measure.latency.clock import golden_feed, images_feed, measure
from vitedge.measure.latency.server import serve
from vitedge.measure.latency.summary import timing, timings
from vitedge.runtimes import open_session

BATCHES = (1, 2, 4, 8, 16)
MOST_STREAMS = 8
"""Compared unasked: each is a session, with weights of its own."""
SAMPLES_PER_QUERY = 8
SEED = 0
"""Of a server's arrivals: two artifacts get the same ones."""


@dataclass(frozen=True)
class Setup:
    """How one artifact is to be run."""

    bundle: Bundle
    duration_s: float
    """For each scenario or sweep."""
    batch: int | None
    """Images a run; None: 1, or several where a scenario compares them."""
    threads: int
    """Inference threads, shared by all streams."""
    streams: int
    """Runs at a time; 0: 1, or several where a scenario compares them."""
    on_progress: Callable[[float], None]
    """Called with the fraction done, 0-1."""

    def stream_threads(self, streams: int) -> int:
        return max(1, self.threads // streams)


@contextmanager
def _opened(setup: Setup, streams: int) -> Iterator[tuple[Session, ...]]:
    """The artifact, loaded once for each stream."""
    with ExitStack() as stack:
        threads = setup.stream_threads(streams)
        yield tuple(
            stack.enter_context(open_session(setup.bundle, threads)) for _ in range(streams)
        )


def multi_stream(setup: Setup) -> MultiStream:
    """MLPerf's MultiStream: queries of 8 images, the next one when the last is done."""
    count = setup.streams or 1
    with _opened(setup, count) as sessions, ThreadPoolExecutor(count) as pool:
        fixed = sessions[0].inputs[0].shape[0]
        golden_feed(setup.bundle, sessions[0], setup.batch)  # it takes that batch
        batch = fixed or setup.batch or -(-SAMPLES_PER_QUERY // count)
        step = batch * count  # so that no stream is idle
        samples = -(-SAMPLES_PER_QUERY // step) * step
        feed = images_feed(setup.bundle, sessions[0], samples)
        query = parallel.Query(sessions, batch, pool)
        comparison = measure([query], [feed], setup.duration_s, on_progress=setup.on_progress)
    return MultiStream(
        **msgspec.structs.asdict(timings(comparison)[0]),
        samples_per_query=samples,
        batch=batch,
        streams=count,
        threads=setup.stream_threads(count),
    )


def offline(setup: Setup) -> Offline:
    """MLPerf's Offline: throughput over batch sizes and parallel streams, measured in turn."""
    on_cpu = runtime_of(setup.bundle.manifest.target).processor == "cpu"
    most = min(setup.threads, MOST_STREAMS) if on_cpu else 2
    counts = [setup.streams] if setup.streams else _counts(most)
    settings = []
    with ExitStack() as stack:
        for count in counts:
            sessions = stack.enter_context(_opened(setup, count))
            fixed = sessions[0].inputs[0].shape[0]
            golden_feed(setup.bundle, sessions[0], setup.batch)  # it takes that batch
            for batch in (fixed,) if fixed else (setup.batch,) if setup.batch else BATCHES:
                feed = images_feed(setup.bundle, sessions[0], batch)
                settings.append(parallel.Setting(sessions, feed, batch))
        rates = parallel.throughput(settings, setup.duration_s, on_progress=setup.on_progress)
    points = tuple(
        Throughput(
            batch=setting.batch,
            streams=len(setting.streams),
            threads=setup.stream_threads(len(setting.streams)),
            images_per_s=rate.images_per_s,
            images_per_s_ci=rate.interval,
            n=rate.n,
        )
        for setting, rate in zip(settings, rates, strict=True)
    )
    note = f"fixed at batch {fixed}: export with --batch dynamic to compare sizes" if fixed else ""
    best = max(points, key=lambda point: point.images_per_s)
    return Offline(points=points, best=best, note=note)


def server(setup: Setup, rate_per_s: float) -> Server:
    """MLPerf's Server: `rate_per_s` runs arrive a second, at random, and queue."""
    count = setup.streams or 1
    with _opened(setup, count) as sessions:
        feed = golden_feed(setup.bundle, sessions[0], setup.batch)
        served = serve(
            sessions,
            feed,
            rate_per_s,
            setup.duration_s,
            seed=SEED,
            on_progress=setup.on_progress,
        )
    return Server(
        batch=len(next(iter(feed.values()))),
        rate_per_s=rate_per_s,
        achieved_per_s=len(served.latency_ms) / max(served.elapsed_s, setup.duration_s),
        seed=SEED,
        streams=count,
        threads=setup.stream_threads(count),
        latency=timing(served.due_s, served.latency_ms[:, None]),
        service_p50_ms=float(np.median(served.service_ms)),
        utilization=served.utilization,
        overloaded=served.overloaded,
        unserved=served.unserved,
        duration_s=setup.duration_s,
    )


def sweep_threads(setup: Setup) -> Sweep:
    """Latency on 1, 2, 4, … threads up to every core, timed in turn."""
    counts = _counts(usable_cores())
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(setup.bundle, count)) for count in counts]
        feeds = [golden_feed(setup.bundle, session, setup.batch) for session in sessions]
        share_s = setup.duration_s / len(sessions)
        comparison = measure(sessions, feeds, share_s, on_progress=setup.on_progress)
    batch = len(next(iter(feeds[0].values())))
    return tuple(
        _point(latency, count, batch)
        for latency, count in zip(timings(comparison), counts, strict=True)
    )


def sweep_batch(setup: Setup) -> Sweep:
    """Latency of 1, 2, 4, 8 and 16 images a run, timed in turn. Raises InputError if fixed."""
    with _opened(setup, 1) as (session,):
        feeds = [golden_feed(setup.bundle, session, batch) for batch in BATCHES]
        share_s = setup.duration_s / len(BATCHES)
        sessions = [session] * len(BATCHES)
        comparison = measure(sessions, feeds, share_s, on_progress=setup.on_progress)
    return tuple(
        _point(latency, setup.threads, batch)
        for latency, batch in zip(timings(comparison), BATCHES, strict=True)
    )


def _counts(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def _point(latency: measurements.Timing, threads: int, batch: int) -> SweepPoint:
    return SweepPoint(
        **msgspec.structs.asdict(latency),
        threads=threads,
        batch=batch,
        images_per_s=batch / latency.p50_ms * 1e3,
    )

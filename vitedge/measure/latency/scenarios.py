"""MLPerf's Offline of one artifact, and its sweeps: what there is beside SingleStream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import msgspec

from vitedge.core.bundle import Bundle
from vitedge.core.machine import usable_cores
from vitedge.core.measurements import Offline, Sweep, SweepPoint
from vitedge.core.runtime import Session, runtime_of
from vitedge.measure.latency.clock import golden_feed, images_feed, measure
from vitedge.measure.latency.request import BenchRequest
from vitedge.measure.latency.summary import timings
from vitedge.measure.latency.throughput import Setting, throughput
from vitedge.runtimes import open_session

OnProgress = Callable[[float], None]
"""Called with the fraction done, 0-1."""
BATCHES = (1, 2, 4, 8, 16)
MOST_STREAMS = 8
"""Compared unasked: each is a session, with weights of its own."""


def offline(bundle: Bundle, request: BenchRequest, on_progress: OnProgress) -> Offline:
    """MLPerf's Offline: throughput over batch sizes and parallel streams, measured in turn."""
    on_cpu = runtime_of(bundle.manifest.target).processor == "cpu"
    most = min(request.threads_of(bundle), MOST_STREAMS) if on_cpu else 2
    counts = [request.streams] if request.streams else _counts(most)
    settings = []
    with ExitStack() as stack:
        for count in counts:
            threads = request.threads_of(bundle, count)
            sessions = tuple(
                stack.enter_context(open_session(bundle, threads)) for _ in range(count)
            )
            fixed = sessions[0].inputs[0].shape[0]
            golden_feed(bundle, sessions[0], request.batch)  # it takes that batch
            for batch in (fixed,) if fixed else (request.batch,) if request.batch else BATCHES:
                feed = images_feed(bundle, sessions[0], batch)
                settings.append(Setting(sessions, feed, batch, threads))
        points = throughput(settings, request.duration_s, on_progress=on_progress)
    note = f"fixed at batch {fixed}: a dynamic batch would compare sizes" if fixed else ""
    best = max(points, key=lambda point: point.images_per_s)
    return Offline(points=tuple(points), best=best, note=note)


def sweep_threads(bundle: Bundle, request: BenchRequest, on_progress: OnProgress) -> Sweep:
    """Latency on 1, 2, 4, … threads up to every core, timed in turn."""
    with ExitStack() as stack:
        counts = _counts(usable_cores())
        sessions = [stack.enter_context(open_session(bundle, count)) for count in counts]
        batches = [request.batch] * len(counts)
        return _sweep(bundle, sessions, counts, batches, request, on_progress)


def sweep_batch(bundle: Bundle, request: BenchRequest, on_progress: OnProgress) -> Sweep:
    """Latency of 1, 2, 4, 8 and 16 images a run, timed in turn. Raises InputError if fixed."""
    threads, n = request.threads_of(bundle), len(BATCHES)
    with open_session(bundle, threads) as session:
        sessions = [session] * n
        return _sweep(bundle, sessions, [threads] * n, BATCHES, request, on_progress)


def _sweep(
    bundle: Bundle,
    sessions: Sequence[Session],
    threads: Sequence[int],
    batches: Sequence[int | None],
    request: BenchRequest,
    on_progress: OnProgress,
) -> Sweep:
    """Time sessions in turn, each on its threads and of its batch; None: what one run takes."""
    pairs = zip(sessions, batches, strict=True)
    feeds = [golden_feed(bundle, session, batch) for session, batch in pairs]
    share_s = request.duration_s / len(sessions)
    timed = timings(measure(sessions, feeds, share_s, on_progress=on_progress))
    sizes = [len(next(iter(feed.values()))) for feed in feeds]
    return tuple(
        SweepPoint(
            **msgspec.structs.asdict(latency),
            threads=count,
            batch=size,
            images_per_s=size / latency.p50_ms * 1e3,
        )
        for latency, count, size in zip(timed, threads, sizes, strict=True)
    )


def _counts(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})

"""MLPerf's Offline of one artifact, and its sweeps: what there is beside SingleStream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec

from vitedge.core.bundle import Bundle
from vitedge.core.machine import usable_cores
from vitedge.core.measurements import Offline, Sweep, SweepPoint
from vitedge.core.runtime import Session, runtime_of
from vitedge.measure.latency.clock import golden_feed, images_feed, measure
from vitedge.measure.latency.summary import timings
from vitedge.measure.latency.throughput import Setting, throughput
from vitedge.runtimes import open_session

BATCHES = (1, 2, 4, 8, 16)
MOST_STREAMS = 8
"""Compared unasked: each is a session, with weights of its own."""


@dataclass(frozen=True)
class Setup:
    """How one artifact is to be run."""

    bundle: Bundle
    duration_s: float
    """For each scenario or sweep."""
    batch: int | None
    """Images a run; None: 1, and several in Offline."""
    threads: int
    """Inference threads, shared by all streams."""
    streams: int
    """Runs at a time in Offline; 0: several, compared."""
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
                settings.append(Setting(sessions, feed, batch, setup.stream_threads(count)))
        points = throughput(settings, setup.duration_s, on_progress=setup.on_progress)
    note = f"fixed at batch {fixed}: a dynamic batch would compare sizes" if fixed else ""
    best = max(points, key=lambda point: point.images_per_s)
    return Offline(points=tuple(points), best=best, note=note)


def sweep_threads(setup: Setup) -> Sweep:
    """Latency on 1, 2, 4, … threads up to every core, timed in turn."""
    with ExitStack() as stack:
        counts = _counts(usable_cores())
        sessions = [stack.enter_context(open_session(setup.bundle, count)) for count in counts]
        return _sweep(setup, sessions, counts, [setup.batch] * len(counts))


def sweep_batch(setup: Setup) -> Sweep:
    """Latency of 1, 2, 4, 8 and 16 images a run, timed in turn. Raises InputError if fixed."""
    with _opened(setup, 1) as (session,):
        n = len(BATCHES)
        return _sweep(setup, [session] * n, [setup.threads] * n, BATCHES)


def _sweep(
    setup: Setup, sessions: Sequence[Session], threads: Sequence[int], batches: Sequence[int | None]
) -> Sweep:
    """Time sessions in turn, each on its threads and of its batch; None: what one run takes."""
    pairs = zip(sessions, batches, strict=True)
    feeds = [golden_feed(setup.bundle, session, batch) for session, batch in pairs]
    share_s = setup.duration_s / len(sessions)
    timed = timings(measure(sessions, feeds, share_s, on_progress=setup.on_progress))
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

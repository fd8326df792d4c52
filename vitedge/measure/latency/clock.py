"""One clock for every runtime: sessions are timed in turn within one run.

A machine that drifts, drifts for all of them.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitedge.core.errors import InputError
from vitedge.core.runtime import Session
from vitedge.measure.statistics import ratio_of_medians

Feed = Mapping[str, NDArray[Any]]

P90_RUNS, P99_RUNS = 64, 662
"""Fewest runs a percentile is reported from: MLPerf Inference's early-stopping rule."""

BLOCK_MS = 50.0
"""Timed runs of one session before the next one's turn."""
ROUNDS = 10
"""Fewest rounds, though the time asked for is overrun up to threefold; 3 rounds at any price."""
WARM_UP_MS = 2000.0
"""Longest warm-up of one session."""
WARM_UP_GAIN = 0.03
"""A block this much faster than any before it says the session is still warming up."""


@dataclass(frozen=True)
class Latency:
    """How long one run takes, milliseconds. A percentile the sample is too small for is None."""

    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    n: int


def summarize(samples_ms: ArrayLike) -> Latency:
    """Summarize the latencies of one or more runs, milliseconds, any shape.

    p90 needs 64 runs and p99 662 (MLPerf Inference, early stopping at 99% confidence).
    """
    samples = np.asarray(samples_ms, dtype=np.float64).ravel()
    if not samples.size:
        raise InputError("no runs to summarize", fix="measure for longer")
    p50, p90, p99 = (float(p) for p in np.percentile(samples, [50, 90, 99]))
    return Latency(
        p50_ms=p50,
        p90_ms=p90 if samples.size >= P90_RUNS else None,
        p99_ms=p99 if samples.size >= P99_RUNS else None,
        mean_ms=float(samples.mean()),
        n=samples.size,
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Sessions timed in turn, in the order they were given."""

    latencies: tuple[Latency, ...]
    rounds: tuple[NDArray[np.float64], ...]
    """Every timed run, milliseconds: one (rounds, runs) array per session. Row i of all of them
    was measured in round i; `runs` differs between sessions."""
    starts_s: tuple[NDArray[np.float64], ...]
    """When each of them began, seconds since timing did: one (rounds,) array per session."""

    def speedup(self, artifact: int, reference: int) -> tuple[float, tuple[float, float]]:
        """How many times faster session `artifact` is than `reference`, and its 95% interval.

        Reference p50 over artifact p50; 2.0 is half the latency.
        """
        ratio = self.latencies[reference].p50_ms / self.latencies[artifact].p50_ms
        return ratio, ratio_of_medians(self.rounds[reference], self.rounds[artifact])


def measure(
    sessions: Sequence[Session],
    feeds: Sequence[Feed],
    duration_s: float,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Time one or more sessions in turn, about `duration_s` seconds each after warm-up.

    A round gives each session a block of about 50 ms of timed runs (one at least), after an
    untimed one that refills the caches its predecessor emptied; a session alone whose runs are
    longer than a block does without. The order rotates between rounds.

    Args:
        sessions: what to time, open and on its device.
        feeds: the input of each session.
        duration_s: seconds for each session. Overrun where it is too short for 10 rounds, or
            for 3 when runs are very slow.
        on_progress: called with the fraction done, 0-1, after each round.

    Raises:
        InputError: `duration_s` is not positive.
    """
    if not sessions or len(sessions) != len(feeds):
        raise ValueError(f"{len(sessions)} sessions and {len(feeds)} feeds")
    check_duration(duration_s)
    budget_ms = duration_s * 1e3 * len(sessions)
    block_ms = min(BLOCK_MS, duration_s * 1e3 / ROUNDS)
    turns = list(zip(sessions, feeds, strict=True))
    blocks: list[list[NDArray[np.float64]]] = [[] for _ in turns]
    starts_ns: list[list[int]] = [[] for _ in turns]
    with no_gc():
        run_ms = [warm_up(session, feed, block_ms) for session, feed in turns]
        runs = [runs_in(block_ms, ms) for ms in run_ms]
        round_ms = sum((n + 1) * ms for n, ms in zip(runs, run_ms, strict=True))
        least = max(3, min(ROUNDS, int(3 * budget_ms / round_ms)))
        start = perf_counter_ns()
        done = 0.0
        while done < 1:
            first = len(blocks[0])  # rounds so far
            for turn in range(len(turns)):
                i = (first + turn) % len(turns)
                session, feed = turns[i]
                if len(turns) > 1 or runs[i] > 1:
                    session.run(feed)
                starts_ns[i].append(perf_counter_ns() - start)
                blocks[i].append(_time(session, feed, runs[i]))
            spent = (perf_counter_ns() - start) / 1e6 / budget_ms
            done = min(1.0, spent, len(blocks[0]) / least)
            if on_progress:
                on_progress(done)
    rounds = tuple(np.stack(block) for block in blocks)
    starts_s = tuple(np.array(each, dtype=np.float64) / 1e9 for each in starts_ns)
    return Comparison(tuple(summarize(samples) for samples in rounds), rounds, starts_s)


def check_duration(duration_s: float) -> None:
    """Raises InputError where it is no length of time."""
    if not 0 < duration_s < math.inf:
        raise InputError(f"duration is {duration_s} s", fix="give a duration above 0 seconds")


def warm_up(session: Session, feed: Feed, block_ms: float = BLOCK_MS) -> float:
    """Run until two blocks in a row are no faster than the best before; returns its ms a run."""
    end = perf_counter_ns() + WARM_UP_MS * 1e6
    best = float(_time(session, feed, 1)[0])
    steady = 0
    while steady < 2 and perf_counter_ns() < end:
        median = float(np.median(_time(session, feed, runs_in(block_ms, best))))
        steady = 0 if median < best * (1 - WARM_UP_GAIN) else steady + 1
        best = min(best, median)
    return best


def runs_in(block_ms: float, run_ms: float) -> int:
    """How many runs make a block; one at least."""
    return max(1, round(block_ms / run_ms))


def _time(session: Session, feed: Feed, runs: int) -> NDArray[np.float64]:
    """Latency of each of `runs` runs, milliseconds."""
    elapsed_ns = []
    for _ in range(runs):
        start = perf_counter_ns()
        session.run(feed)
        elapsed_ns.append(perf_counter_ns() - start)
    return np.array(elapsed_ns, dtype=np.float64) / 1e6


@contextmanager
def no_gc() -> Iterator[None]:
    """Keep the garbage collector out of the timings."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

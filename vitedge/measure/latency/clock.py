"""One clock for every runtime: sessions are timed in turn within one run, on golden images.

A machine that drifts, drifts for all of them; and a device needs no dataset.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.runtime import SelfTimed, Session
from vitedge.measure.latency.summary import LatencyComparison, summarize

Feed = Mapping[str, NDArray[Any]]

BLOCK_MS = 50.0
"""Timed runs of one session before the next one's turn."""
ROUNDS = 10
"""Fewest rounds, though the time asked for is overrun up to threefold; 3 rounds at any price."""
WARM_UP_MS = 2000.0
"""Longest warm-up of one session."""
WARM_UP_GAIN = 0.03
"""A block this much faster than any before it says the session is still warming up."""


def measure(
    sessions: Sequence[Session],
    feeds: Sequence[Feed],
    duration_s: float,
    *,
    on_progress: Callable[[float], None] = lambda done: None,
) -> LatencyComparison:
    """Time one or more sessions in turn, about `duration_s` seconds each after warm-up.

    A round gives each session a block of about 50 ms of timed runs (one at least), after an
    untimed one that refills the caches its predecessor emptied; a session alone whose runs are
    longer than a block does without. The order rotates between rounds.

    Args:
        sessions: what to time, open and on its processor.
        feeds: the input of each session.
        duration_s: seconds for each session. Overrun where it is too short for 10 rounds, or
            for 3 when runs are very slow.
        on_progress: called with the fraction done, 0-1, after each round.

    Raises:
        InputError: `duration_s` is not positive.
    """
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
        for first in rounds_for(duration_s * len(sessions), least, on_progress):
            for turn in range(len(turns)):
                i = (first + turn) % len(turns)
                session, feed = turns[i]
                if len(turns) > 1 or runs[i] > 1:
                    session.run(feed)
                starts_ns[i].append(perf_counter_ns() - start)
                blocks[i].append(_time(session, feed, runs[i]))
    rounds = tuple(np.stack(block) for block in blocks)
    starts_s = tuple(np.array(starts, dtype=np.float64) / 1e9 for starts in starts_ns)
    return LatencyComparison(tuple(summarize(samples) for samples in rounds), rounds, starts_s)


def rounds_for(
    duration_s: float, least: int, on_progress: Callable[[float], None]
) -> Iterator[int]:
    """The number of each round, from 0, until `duration_s` seconds are over; `least` at least.

    `on_progress` is called with the fraction done, 0-1, after each round.
    """
    start = perf_counter_ns()
    for number in count():
        yield number
        spent = (perf_counter_ns() - start) / 1e9 / duration_s
        done = min(1.0, spent, (number + 1) / least)
        on_progress(done)
        if done == 1:
            return


def golden_feed(bundle: Bundle, session: Session, batch: int | None) -> Feed:
    """The golden images, as many as one run takes. Raises InputError where it takes no `batch`."""
    fixed = session.inputs[0].shape[0]
    if fixed and batch not in (None, fixed):
        raise InputError(
            f"{bundle.path} is fixed at batch {fixed}, not {batch}",
            fix=f"drop `batch`, or export with `batch={batch}` or `batch='dynamic'`",
        )
    return images_feed(bundle, session, fixed or batch or 1)


def images_feed(bundle: Bundle, session: Session, batch: int) -> Feed:
    """`batch` images: the golden ones, over and over."""
    images = bundle.golden().images
    repeats = -(-batch // len(images))
    return {session.inputs[0].name: np.concatenate([images] * repeats)[:batch]}


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
    """Latency of each of `runs` runs, milliseconds; by the session's own clock, if it has one."""
    if isinstance(session, SelfTimed):
        return session.time(feed, runs)
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

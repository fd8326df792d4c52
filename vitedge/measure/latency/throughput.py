"""Throughput of parallel streams, which MLPerf's Offline compares: many images at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import exp, sqrt
from time import perf_counter_ns

import numpy as np

from vitedge.core.measurements import Throughput
from vitedge.core.runtime import SelfTimed, Session
from vitedge.measure.latency.clock import BLOCK_MS, Feed, no_gc, rounds_for, runs_in, warm_up
from vitedge.measure.statistics import students_t

BURST_MS = 2 * BLOCK_MS
"""Timed runs of one setting before the next one's turn: streams start and stop a little apart."""
ROUNDS = 5
CONFIDENCE = 0.95


def _run_all(session: Session, feed: Feed, runs: int) -> None:
    if isinstance(session, SelfTimed):
        session.time(feed, runs)
        return
    for _ in range(runs):
        session.run(feed)


@dataclass(frozen=True)
class Setting:
    """One point of a throughput curve: what every stream runs, again and again."""

    streams: tuple[Session, ...]
    feed: Feed
    batch: int
    threads: int
    """Of each stream."""


def throughput(
    settings: Sequence[Setting], duration_s: float, *, on_progress: Callable[[float], None]
) -> list[Throughput]:
    """Measure settings in turn, about `duration_s` seconds altogether, 5 rounds at least.

    In its turn every stream of a setting runs for about 100 ms on a thread of its own, the next
    run beginning when the last one ends. The interval is Student's t over the rounds' log rates.
    """
    most = max(len(setting.streams) for setting in settings)
    rounds: list[list[tuple[int, float]]] = [[] for _ in settings]  # runs, seconds
    burst_ms = min(BURST_MS, duration_s * 1e3 / len(settings) / ROUNDS)
    with no_gc(), ThreadPoolExecutor(most) as pool:
        runs = [_runs(setting, pool, burst_ms) for setting in settings]
        for _ in rounds_for(duration_s, ROUNDS, on_progress):
            for setting, count, bursts in zip(settings, runs, rounds, strict=True):
                seconds = _burst(setting, count, pool)
                bursts.append((count * len(setting.streams), seconds))
    return [_rate(bursts, setting) for bursts, setting in zip(rounds, settings, strict=True)]


def _runs(setting: Setting, pool: ThreadPoolExecutor, burst_ms: float) -> int:
    """Warm every stream up alone, then all together; returns how many runs make a burst."""
    alone_ms = max(warm_up(stream, setting.feed, burst_ms / 4) for stream in setting.streams)
    trial = runs_in(burst_ms / 2, alone_ms)
    return runs_in(burst_ms, _burst(setting, trial, pool) * 1e3 / trial)


def _burst(setting: Setting, runs: int, pool: ThreadPoolExecutor) -> float:
    """Time until every stream has made `runs` runs, seconds."""
    start = perf_counter_ns()
    if len(setting.streams) == 1:
        _run_all(setting.streams[0], setting.feed, runs)
    else:
        streams = len(setting.streams)
        list(pool.map(_run_all, setting.streams, [setting.feed] * streams, [runs] * streams))
    return (perf_counter_ns() - start) / 1e9


def _rate(rounds: Sequence[tuple[int, float]], setting: Setting) -> Throughput:
    runs, seconds = (sum(column) for column in zip(*rounds, strict=True))
    per_s = setting.batch * runs / seconds
    logs = np.log([count / took for count, took in rounds])
    error = float(np.std(logs, ddof=1)) / sqrt(len(rounds))
    margin = exp(students_t(CONFIDENCE, len(rounds) - 1) * error)
    return Throughput(
        batch=setting.batch,
        streams=len(setting.streams),
        threads=setting.threads,
        images_per_s=per_s,
        images_per_s_ci=(per_s / margin, per_s * margin),
        n=int(runs),
    )

"""Energy of one run, taken apart from the timing: a meter needs seconds of the same work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep

from vitedge.core.bundle import Bundle
from vitedge.core.errors import UnavailableError
from vitedge.core.measurements import Energy
from vitedge.core.runtime import runtime_of
from vitedge.measure.latency.clock import golden_feed, warm_up
from vitedge.measure.latency.meter import Meter, find_meter
from vitedge.runtimes import open_session

IDLE_S = 0.5
LONGEST_S = 3.0
"""Of running; meters tell more often than ten times a second."""


def measure_energy(
    bundle: Bundle,
    duration_s: float,
    root: Path,
    *,
    batch: int | None,
    threads: int,
    on_progress: Callable[[float], None],
) -> Energy:
    """Run `bundle` for `duration_s`, 3 s at most, under this machine's meter; `root` holds sys/.

    Says why where there is no meter; then nothing is run.
    """
    try:
        meter = find_meter(root, gpu=runtime_of(bundle.manifest.target).processor == "gpu")
        return _measure(bundle, min(duration_s, LONGEST_S), meter, batch, threads, on_progress)
    except UnavailableError as error:
        how = f" (to allow it: {error.fix})" if error.fix else ""
        return Energy(
            joules_per_inference=None,
            watts=None,
            idle_watts=None,
            batch=batch or 1,
            source=None,
            note=f"not available: {error.what}{how}",
        )


def _measure(
    bundle: Bundle,
    duration_s: float,
    meter: Meter,
    batch: int | None,
    threads: int,
    on_progress: Callable[[float], None],
) -> Energy:
    with open_session(bundle, threads) as session:
        feed = golden_feed(bundle, session, batch)
        idle_w = _watts(meter, lambda: sleep(IDLE_S))
        warm_up(session, feed)
        runs = 0
        meter.start()
        start = perf_counter()
        while (spent := perf_counter() - start) < duration_s:
            session.run(feed)
            runs += 1
            on_progress(spent / duration_s)
        spent, joules = perf_counter() - start, meter.stop()
    return Energy(
        joules_per_inference=joules / runs,
        watts=joules / spent,
        idle_watts=idle_w,
        batch=len(next(iter(feed.values()))),
        source=meter.source,
        note="",
    )


def _watts(meter: Meter, work: Callable[[], None]) -> float:
    start = perf_counter()
    meter.start()
    work()
    return meter.stop() / (perf_counter() - start)

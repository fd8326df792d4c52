"""What was timed as one series: single runs, Offline, sweeps, and parts of a run end to end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vitedge.core.measurements import Percentiles
from vitedge.core.report import Report
from vitedge.show.columns import CSV, TABLES, TIMING
from vitedge.show.table import Column, lift

SINGLE = "single-stream"
PARTS = {
    **{"decode": "decode", "resize": "resize", "run": "run", "sum": "sum of these"},
    **{"whole": "the whole", "run_alone": "run alone"},
}
"""Of a run from image files to outputs: fields of `EndToEnd`."""


@dataclass(frozen=True)
class Setting:
    """One scenario of a report, or one point of it."""

    report: Report
    scenario: str
    batch: int
    streams: int
    threads: int | None
    n: int
    """Timed runs."""
    timing: Percentiles | None = None
    """None of Offline, where only throughput counts."""
    images_per_s: float = 0.0
    """Not of one run at a time."""
    images_per_s_ci: tuple[float, float] | None = None
    best: bool = False
    """Of Offline's."""
    part: str = ""
    """Of a run from image files to outputs, as people name it."""


def settings(report: Report) -> Iterator[Setting]:
    """One run at a time, then Offline's and each sweep's points, and a run's parts end to end."""
    threads = report.host.threads if report.host else None
    if single := report.latency:
        yield Setting(report, SINGLE, single.batch, 1, threads, single.n, single)
    if offline := report.offline:
        for p in offline.points:
            rate = p.images_per_s, p.images_per_s_ci, p == offline.best
            yield Setting(report, "offline", p.batch, p.streams, p.threads, p.n, None, *rate)
    for what, sweep in (("threads", report.sweep_threads), ("batch", report.sweep_batch)):
        for s in sweep or ():
            yield Setting(report, f"sweep-{what}", s.batch, 1, s.threads, s.n, s, s.images_per_s)
    if of_files := report.end_to_end:
        for name, said in PARTS.items():
            timing: Percentiles = getattr(of_files, name)
            scenario = f"end-to-end-{name.replace('_', '-')}"
            about = (report, scenario, of_files.batch, 1, threads, timing.n, timing)
            yield Setting(*about, part=said)


def points(reports: Iterable[Report]) -> list[Setting]:
    """All settings of Offline and sweeps."""
    every = (s for report in reports for s in settings(report))
    return [s for s in every if s.scenario != SINGLE and not s.part]


_Setting = Column[Setting]
SCENARIO = _Setting("scenario", "scenario", "", lambda s: s.scenario, kind="word")
BATCH = _Setting("batch", "batch", "", lambda s: s.batch)
THREADS = _Setting("threads", "threads", "", lambda s: s.threads)
STREAMS = _Setting("streams", "streams", "", lambda s: s.streams)
RUNS = _Setting("n", "runs", "", lambda s: s.n, on=("page", "csv"))
IMAGES_PER_S = _Setting("images_per_s", "images/s", "", lambda s: s.images_per_s or None, ".4g")
RATE_CI = replace(IMAGES_PER_S, ci=lambda s: s.images_per_s_ci, on=CSV)
RATE = (
    replace(IMAGES_PER_S, on=TABLES),
    _Setting("best", "best", "", lambda s: "*" if s.best else "", kind="word", on=TABLES),
    _Setting("ci", "95% CI", "", lambda s: s.images_per_s_ci, ".4g", kind="interval", on=TABLES),
    RATE_CI,
)


def of_reports(*columns: Column[Report]) -> tuple[Column[Setting], ...]:
    return lift(lambda setting: setting.report, *columns)


def timing_columns() -> tuple[Column[Setting], ...]:
    return lift(lambda setting: setting.timing, *TIMING)


def single_stream(report: Report) -> Setting | None:
    return next(settings(report), None) if report.latency else None

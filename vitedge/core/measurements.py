"""What `bench` measures of an artifact: sections of report.json, one for each kind of run."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vitedge.core.jetson import Jetson
from vitedge.core.spec import Precision

StandardError = Annotated[float, msgspec.Meta(ge=0, le=10)]
"""Of a share or of a logarithm: more than that was not measured."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the sections. What was not measured is null, or its section is not there."""


class Distribution(Measurement, frozen=True, kw_only=True):
    """Every timed run, for plots; a claim about a percentile is `Percentiles`' to make."""

    quantiles_ms: Annotated[tuple[float, ...], msgspec.Meta(min_length=101, max_length=101)]
    """101 latencies: the smallest, those that 1, 2, … 99% of the runs stay under, the largest."""
    series: tuple[tuple[float, float], ...]
    """(seconds since timing began, median ms of the runs around then), 120 points at most."""


class Percentiles(Measurement, frozen=True, kw_only=True):
    """Latency of one run, milliseconds. None where the sample is too small for a percentile:
    p90 needs 64 runs and p99 662 (MLPerf Inference, early stopping at 99% confidence)."""

    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    n: int


class Timing(Percentiles, frozen=True, kw_only=True):
    """Latency of one run, and every timed run for plots."""

    distribution: Distribution


class Lead(Measurement, frozen=True, kw_only=True):
    """How many times faster an artifact is than another of its model, timed in turn with it."""

    speedup: float
    """p50 of the other over its own."""
    speedup_ci: tuple[float, float]
    """95%."""
    log_se: StandardError
    """Standard error of the logarithm of `speedup`."""


class Latency(Timing, frozen=True, kw_only=True):
    """MLPerf's SingleStream: the next run starts when the last one is done. The artifact's timing,
    and that of what it was timed in turn with."""

    batch: int
    against: str | None
    """`fp32`, or the path of the other artifact; None when it was timed alone."""
    fp32: Timing | None
    other: Timing | None
    speedup: float | None
    """p50 of `against` over the artifact's."""
    speedup_ci: tuple[float, float] | None
    rounds: int
    """In which all were timed in turn."""
    speedup_log_se: StandardError | None
    """Standard error of the logarithm of `speedup`; with t(rounds - 1) any interval follows."""
    p90_share_se: StandardError
    """Standard error of the share of runs under p90_ms, 0-1."""
    over: dict[Precision, Lead] = msgspec.field(default_factory=dict)
    """Over the model's other precisions on its target that were timed in the same run, but FP32's,
    which is `speedup`."""


class Throughput(Measurement, frozen=True, kw_only=True):
    """Images a second of one batch size on one number of parallel streams."""

    batch: int
    streams: int
    """Runs at a time, each on a session of its own."""
    threads: int
    """Of each stream."""
    images_per_s: float
    images_per_s_ci: tuple[float, float]
    """95%."""
    n: int
    """Timed runs."""


class Offline(Measurement, frozen=True, kw_only=True):
    """MLPerf's Offline: all images are there at once, and only throughput counts."""

    points: tuple[Throughput, ...]
    """Measured in turn, by streams and then by batch."""
    best: Throughput
    note: str
    """Why there is one batch size only; empty where there are several."""


class SweepPoint(Timing, frozen=True, kw_only=True):
    """One setting of a sweep, timed in turn with all the others."""

    threads: int
    batch: int
    images_per_s: float
    """batch / p50."""


class EndToEnd(Measurement, frozen=True, kw_only=True):
    """From image files, in the page cache, to outputs on the host, as `predict` goes: one run after
    the other, of `batch` images."""

    data: str
    """Name of the image, or of the folder."""
    images: int
    """Different ones, in turn."""
    megapixels: tuple[float, float]
    """Of the smallest and of the largest, as they lie in the files."""
    skipped: dict[str, int]
    """Images left out, by reason."""
    batch: int
    decode: Percentiles
    """Reading, decoding, and turning as EXIF says: pixels in RGB."""
    resize: Percentiles
    """Resizing, cropping and padding to the model's input."""
    run: Percentiles
    sum: Percentiles
    """Of the three, of each run."""
    whole: Percentiles
    """From files to outputs with no look at the clock in between, of as many runs in turn."""
    run_alone: Percentiles
    """Behind another run, in turn with these: caches are warm."""

    @property
    def gap(self) -> float:
        """What the parts leave of the whole, a share of it: p50 of the whole less that of sums."""
        return 1 - self.sum.p50_ms / self.whole.p50_ms


class ColdStart(Measurement, frozen=True, kw_only=True):
    """A fresh process that opens the artifact and runs it once, its files already in the page
    cache. Medians over `n` processes, milliseconds."""

    load_ms: float
    """Verifying hashes, importing the runtime, and creating its session."""
    first_inference_ms: float
    process_to_ready_ms: float
    """From starting the process to its first result: interpreter and imports, too."""
    n: int


class Drift(Measurement, frozen=True, kw_only=True):
    """How latency changes while the device warms up under load."""

    duration_s: float
    slope_percent_per_minute: float
    """Of p50; positive is getting slower."""
    slope_ci: tuple[float, float]
    confidence: float
    slower: bool
    """The interval lies above zero, and the whole run lost 3% or more."""
    throttled: bool | None
    """The kernel counted thermal throttling; None where it has no counters."""
    temperature_c: tuple[float, float] | None
    """Of the hottest sensor, at the start and at the end; None where there is none."""


class Energy(Measurement, frozen=True, kw_only=True):
    """What the meter of this machine says of a run, taken apart from the timing."""

    joules_per_inference: float | None
    """Of one run of `batch` images, all that `source` meters included: idle power, too."""
    watts: float | None
    """While running."""
    idle_watts: float | None
    """Just before, with the artifact loaded."""
    batch: int
    source: str | None
    """`RAPL package-0`, `NVML NVIDIA H200`, `INA3221 VDD_IN`, …"""
    note: str
    """`not available: …` and how to allow it; empty where it was measured."""


class Memory(Measurement, frozen=True, kw_only=True):
    """Of a fresh process that opens and runs the artifact."""

    peak_rss_bytes: int
    device_bytes: int | None
    """Memory of the GPU it takes; None where it runs on the CPU, or NVML does not tell."""


class Conditions(Measurement, frozen=True, kw_only=True):
    """What this machine was like while it timed: how far its numbers can be trusted."""

    measured_at: str
    """UTC, ISO 8601."""
    fingerprint: str
    """`host.fingerprint`: latencies compare only where it is equal."""
    noise_percent: float
    """Interquartile range over median of the time of a fixed piece of work, repeated in every
    round: what would be 0 on a machine of one's own at a fixed frequency."""
    other_cores: float | None
    """Cores that other processes kept busy; None where the kernel does not tell."""
    steal_percent: float | None
    """Of all CPU time, what the hypervisor gave to other machines."""
    frequency_mhz: tuple[float, float] | None
    """Lowest and highest seen of the fastest core; None where the kernel does not tell."""
    throttled: bool | None = None
    """Whether heat or over-current slowed the machine down meanwhile; None where it has no
    counters."""
    temperatures_c: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    """Of each thermal zone that can be read, before timing and after."""
    jetson: Jetson | None = None
    """A Jetson's power mode and clocks when timing was over; `host` has them from before."""
    fp32_floats: bool = False
    """Whether floats were computed in FP32, for want of the BF16 that the artifact is for."""
    warnings: tuple[str, ...]
    """Why not to trust the numbers, a line each; empty where nothing speaks against them."""


Sweep = tuple[SweepPoint, ...]

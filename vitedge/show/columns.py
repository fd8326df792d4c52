"""Every figure of a report, declared once: terminal, pages, CSV and Markdown show these columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from vitedge.core.host import Host
from vitedge.core.jetson import Clock, Jetson
from vitedge.core.measurements import (
    ColdStart,
    Conditions,
    Drift,
    Energy,
    Latency,
    Memory,
    Percentiles,
    Timing,
)
from vitedge.core.report import Accuracy, DetectionError, Numerics, OutputNumerics, Report, Size
from vitedge.gate.compare import Side
from vitedge.show.table import Column, Part, lift, only
from vitedge.show.text import number, plain

METRICS = {
    **{"top1": "top-1", "miou": "mIoU", "map": "mAP", "pixel_error": "pixel error"},
    "knn_agreement": "k-NN",
}
PAGE, CSV, TABLES = ("page",), ("csv",), ("terminal", "page", "markdown")


def section(
    of: Callable[[Report], Part | None], *columns: Column[Part]
) -> tuple[Column[Report], ...]:
    """Columns of a section of the reports."""
    return lift(of, *columns)


# -- what became of each section ----------------------------------------------------------------


def accuracy(report: Report) -> Accuracy | None:
    """That of the artifact; else that of its graph where the target's runtime is absent."""
    return report.accuracy or (report.simulation.accuracy if report.simulation else None)


def compared(report: Report) -> Accuracy | None:
    """`accuracy` against FP32's, which is not compared with itself."""
    return None if report.precision == "fp32" else accuracy(report)


def numerics(report: Report) -> Numerics | None:
    """Outputs against FP32's, likewise."""
    simulated = report.simulation.numerics if report.simulation else None
    return None if report.precision == "fp32" else report.numerics or simulated


def telling(report: Report) -> Numerics | None:
    """The same; None where they prove nothing."""
    measured = numerics(report)
    return None if measured and measured.degenerate else measured


def detections(report: Report) -> DetectionError | None:
    """Those of a detector against FP32's, likewise."""
    measured = telling(report)
    return measured.detections if measured else None


def rival(latency: Latency) -> Timing | None:
    """That of what an artifact was timed in turn with."""
    return latency.fp32 or latency.other


def machine(report: Report) -> str:
    """What ran it."""
    host = report.host
    ran = (host.accelerator or host.cpu) if host else "?"
    return f"{report.device} ({ran})" if report.device else ran


def named(reports: Sequence[Report]) -> list[Report]:
    """The reports, each artifact with its machine's name where there are several."""
    if len({machine(report) for report in reports}) <= 1:
        return list(reports)
    names = [f"{report.artifact} on {machine(report)}" for report in reports]
    pairs = zip(reports, names, strict=True)
    return [msgspec.structs.replace(report, artifact=name) for report, name in pairs]


def temperatures(conditions: Conditions) -> str | None:
    """Of each zone, before and after; None where there is none."""
    pairs = conditions.temperatures_c.items()
    return ", ".join(f"{name} {low:.0f} → {high:.0f}" for name, (low, high) in pairs) or None


def board(jetson: Jetson | None) -> str | None:
    """A Jetson's, with its Jetson Linux."""
    if jetson is None:
        return None
    return f"{jetson.board or 'Jetson'}, Jetson Linux {jetson.l4t or 'unknown'}"


def power_mode(jetson: Jetson | None) -> str | None:
    """A Jetson's; None of other machines."""
    if jetson is None:
        return None
    return jetson.power_mode.name if jetson.power_mode else "unknown"


def locked(jetson: Jetson | None) -> str | None:
    """Whether each clock of a Jetson is; None of other machines."""
    if jetson is None:
        return None
    clocks = {"CPU": jetson.cpu, "GPU": jetson.gpu, "memory": jetson.memory}
    return ", ".join(f"{name} {_clock(clock)}" for name, clock in clocks.items())


def _clock(clock: Clock | None) -> str:
    if clock is None:
        return "unknown"
    highest = number(clock.max_mhz, ",.0f")
    return f"at {highest} MHz" if clock.locked else f"no, up to {highest} MHz"


# -- columns of reports -------------------------------------------------------------------------

_Report = Column[Report]
ARTIFACT = _Report("artifact", "artifact", "", lambda r: r.artifact, kind="head")
FAILED = _Report("failed", "failed", "", lambda r: None, kind="text")
IDENTITY = only(
    CSV,
    _Report("model", "model", "", lambda r: r.model),
    _Report("target", "target", "", lambda r: r.target),
    _Report("precision", "precision", "", lambda r: r.precision),
)
_Accuracy = Column[Accuracy]
METRIC = _Accuracy("accuracy", "accuracy", "%", lambda a: a.artifact, ".2f")
DROP = _Accuracy("drop_pp", "drop", "pp", lambda a: a.drop_pp, "+.2f", lambda a: a.drop_ci_pp)


def _also(key: str, title: str) -> Column[Accuracy]:
    """A further metric, where a report has it."""
    return _Accuracy(
        *(key, title, "%"),
        lambda a: a.also[key].artifact if key in a.also else None,
        ".2f",
        sparse=True,
    )


P99_PIXEL = _also("pixel_error_p99", "p99 pixel")
MAPS = tuple(
    _also(f"map_{part}", f"mAP {said}")
    for part, said in (
        *(("50", "at IoU 0.50"), ("75", "at IoU 0.75")),
        *((size, f"of {size} objects") for size in ("small", "medium", "large")),
    )
)
AGREEMENT = _Accuracy("agreement", "agree", "%", lambda a: a.agreement, ".4g")
NumericsColumn = Column[OutputNumerics]
SQNR = NumericsColumn("sqnr_db", "SQNR", "dB", lambda n: n.sqnr_db, ".1f")
TOKEN_SQNR = NumericsColumn(
    "token_sqnr_db", "worst token", "dB", lambda n: n.worst_token_db, ".1f", sparse=True
)
_Detections = Column[DetectionError]
BOX_IOU = _Detections("box_iou", "boxes' IoU", "%", lambda d: d.box_iou, ".1f", sparse=True)
TOP_OVERLAP = _Detections(
    "top_overlap", "same best", "%", lambda d: d.top_overlap, ".4g", sparse=True
)
ACCURACY = (
    *only(TABLES, *section(accuracy, METRIC)),
    *only(PAGE, *section(accuracy, *MAPS)),
    *only(TABLES, *section(compared, P99_PIXEL, DROP, AGREEMENT)),
    *section(telling, SQNR, TOKEN_SQNR),
    *section(detections, BOX_IOU, TOP_OVERLAP),
)
_Timing = Column[Percentiles]
P50 = _Timing("p50_ms", "p50", "ms", lambda t: t.p50_ms)
P90 = _Timing("p90_ms", "p90", "ms", lambda t: t.p90_ms)
P99 = _Timing("p99_ms", "p99", "ms", lambda t: t.p99_ms, sparse=True)
MEAN = _Timing("mean_ms", "mean", "ms", lambda t: t.mean_ms, on=("page", "csv"))
TIMING = (P50, P90, P99, MEAN)
_Latency = Column[Latency]
SPEEDUP = _Latency("speedup", "speed-up", "", lambda x: x.speedup, ".2f", lambda x: x.speedup_ci)
RIVAL = (
    _Latency("against", "against", "", lambda x: x.against, kind="word", on=("page", "csv")),
    _Latency(
        "against_p50_ms", "its p50", "ms", lambda x: P50.of(t) if (t := rival(x)) else None, on=CSV
    ),
    SPEEDUP,
)
"""Of one run at a time alone."""
SIZE = Column[Size]("size_bytes", "size", "MB", lambda s: s.bytes)
RSS = Column[Memory]("peak_rss_bytes", "RSS", "MB", lambda m: m.peak_rss_bytes)
SIZES = section(
    lambda r: r.size, SIZE, Column("fp32_bytes", "FP32 size", "MB", lambda s: s.fp32_bytes, on=PAGE)
)
MEMORY = section(
    lambda r: r.memory, RSS, Column("device_bytes", "GPU", "MB", lambda m: m.device_bytes)
)
_Cold = Column[ColdStart]
COLD_START = section(
    lambda r: r.cold_start,
    _Cold("load_ms", "load", "ms", lambda c: c.load_ms),
    _Cold("first_inference_ms", "first run", "ms", lambda c: c.first_inference_ms),
    _Cold("process_to_ready_ms", "process to\nresult", "ms", lambda c: c.process_to_ready_ms),
    _Cold("processes", "processes", "", lambda c: c.n, on=PAGE),
)
_Energy = Column[Energy]
ENERGY = section(
    lambda r: r.energy,
    _Energy("joules_per_inference", "energy\na run", "mJ", lambda e: e.joules_per_inference),
    _Energy("watts", "power", "W", lambda e: e.watts, on=TABLES),
    *only(
        PAGE,
        _Energy("idle_watts", "idle", "W", lambda e: e.idle_watts),
        _Energy("energy_batch", "batch", "", lambda e: e.batch),
        _Energy("meter", "meter", "", lambda e: e.source, kind="text"),
    ),
)
_Drift = Column[Drift]
SLOPE = _Drift("slope", "change", "% a minute", lambda d: d.slope_percent_per_minute, "+.2f")
DRIFT = section(
    lambda r: r.drift,
    *only(
        PAGE,
        _Drift("drift_s", "time", "s", lambda d: d.duration_s),
        replace(SLOPE, ci=lambda d: d.slope_ci),
        _Drift("slower", "gets slower", "", lambda d: d.slower),
        _Drift("throttled", "throttled", "", lambda d: d.throttled),
        _Drift("temperature_c", "temperature", "°C", lambda d: d.temperature_c, kind="interval"),
    ),
)
_State = Column[Conditions]
CONDITIONS = (
    _State("noise_percent", "noise", "% of a fixed job", lambda c: c.noise_percent, ".2g"),
    _State("fingerprint", "fingerprint", "", lambda c: c.fingerprint),
    _State("measured_at", "measured at", "", lambda c: c.measured_at, on=CSV),
    *only(
        PAGE,
        _State("other_cores", "busy with other work", "cores", lambda c: c.other_cores, ".2g"),
        _State("steal", "stolen by others", "% of CPU time", lambda c: c.steal_percent, ".2g"),
        _State("clocks", "clocks seen", "MHz", lambda c: c.frequency_mhz, ",.0f", kind="interval"),
        _State("throttled", "slowed down by heat or power", "", lambda c: c.throttled),
        _State("temperatures", "temperatures, before and after", "°C", temperatures),
    ),
)
_Host = Column[Host]
HOST = (
    _Host("cpu", "processor", "", lambda h: h.cpu),
    _Host("power_mode", "power mode", "", lambda h: power_mode(h.jetson)),
    _Host("clocks_locked", "clocks locked", "", lambda h: locked(h.jetson)),
    *only(
        PAGE,
        _Host("isa", "INT8 and vector instructions", "", lambda h: ", ".join(h.isa or ())),
        _Host("accelerator", "accelerator", "", lambda h: h.accelerator),
        _Host("cores", "cores, threads used", "", lambda h: f"{h.cores}, {h.threads}"),
        _Host("memory", "memory", "GB", lambda h: h.memory_bytes),
        _Host("governor", "frequency governor", "", lambda h: h.governor),
        _Host("board", "board", "", lambda h: board(h.jetson)),
        _Host("container", "container", "", lambda h: h.container),
        _Host("cpu_quota", "cores allowed", "", lambda h: h.cpu_quota),
        _Host("memory_limit", "memory allowed", "GB", lambda h: h.memory_limit_bytes),
        _Host("os", "system", "", lambda h: h.os),
        _Host("python", "Python", "", lambda h: h.python),
        _Host("runtimes", "runtimes", "", lambda h: plain(h.runtimes)),
    ),
)


# -- two artifacts side by side -----------------------------------------------------------------

SIDES: tuple[Column[Side], ...] = (
    METRIC.read(lambda side: side.accuracy),
    SQNR.read(lambda side: side.sqnr_db),
    TOKEN_SQNR.read(lambda side: side.token_sqnr_db),
    P50.read(lambda side: side.p50_ms),
    P90.read(lambda side: side.p90_ms),
    SIZE.read(lambda side: side.size_bytes),
    RSS.read(lambda side: side.peak_rss_bytes),
)

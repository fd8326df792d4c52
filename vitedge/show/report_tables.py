"""The tables of reports: for a terminal, a page and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vitedge.core.report import OutputNumerics, Report
from vitedge.show.columns import (
    ACCURACY,
    ARTIFACT,
    COLD_START,
    CONDITIONS,
    DRIFT,
    ENERGY,
    FAILED,
    HOST,
    IDENTITY,
    MEMORY,
    METRICS,
    PAGE,
    RIVAL,
    SIZES,
    SPEEDUP,
    SQNR,
    TABLES,
    TOKEN_SQNR,
    NumericsColumn,
    accuracy,
    numerics,
    section,
)
from vitedge.show.settings import (
    BATCH,
    PARTS,
    RATE,
    RUNS,
    SCENARIO,
    SINGLE,
    STREAMS,
    THREADS,
    Setting,
    of_reports,
    points,
    settings,
    single_stream,
    timing_columns,
)
from vitedge.show.table import Column, Table, lift, only


def proof(
    reports: Sequence[Report], title: str, failures: Mapping[str, str] | None = None
) -> Table[Report]:
    """Accuracy, latency and size, a row for each report; and why artifacts failed, by name."""
    metrics = {METRICS[measured.metric] for report in reports if (measured := accuracy(report))}
    first, *others = ACCURACY
    columns = (
        *(ARTIFACT, replace(first, title=metrics.pop() if len(metrics) == 1 else "accuracy")),
        *(*others, *lift(single_stream, *timing_columns(), RUNS, *only(PAGE, BATCH))),
        *(*section(lambda r: r.latency, SPEEDUP, RIVAL[0]), *SIZES[:1], *MEMORY[:1]),
        *([replace(FAILED, of=lambda r: failures.get(r.artifact))] if failures else []),
    )
    return Table(title, columns, reports, keeps_empty=True)


def throughput(reports: Sequence[Report], title: str) -> Table[Setting]:
    """Offline and sweeps, a row for each setting."""
    p50, p90, *others = timing_columns()
    timing = (p50, p90, *only(PAGE, *others, RUNS))
    columns = (*of_reports(ARTIFACT), SCENARIO, BATCH, THREADS, STREAMS, *RATE, *timing)
    return Table(title, columns, points(reports))


def end_to_end(reports: Sequence[Report], title: str) -> Table[Setting]:
    """From image files to outputs, a row for each part, the sum, the whole and the run alone."""

    def share(setting: Setting) -> float | None:
        of_files, timing = setting.report.end_to_end, setting.timing
        if of_files is None or timing is None or setting.part == PARTS["run_alone"]:
            return None
        return timing.p50_ms / of_files.whole.p50_ms

    rows = [s for report in reports for s in settings(report) if s.part]
    part = Column[Setting]("part", "part", "", lambda s: s.part, kind="word")
    of_whole = Column[Setting]("share", "of whole", "%", share, ".3g", on=TABLES)
    p50, p90, *others = timing_columns()
    columns = (*of_reports(ARTIFACT), part, p50, p90, of_whole, *only(PAGE, *others, BATCH, RUNS))
    return Table(title, columns, rows)


def costs(reports: Sequence[Report], title: str) -> Table[Report]:
    """What a fresh process costs, a row for each report that says so."""
    timed = [report for report in reports if report.cold_start]
    return Table(title, (ARTIFACT, *COLD_START, *MEMORY, *ENERGY), timed)


@dataclass(frozen=True)
class NamedOutput:
    """One of several outputs of an artifact."""

    report: Report
    name: str
    numerics: OutputNumerics


_Output = Column[NamedOutput]
OUTPUTS: tuple[Column[NamedOutput], ...] = (
    *lift(lambda output: output.report, ARTIFACT),
    _Output("output", "output", "", lambda output: output.name, kind="name"),
    _Output(
        *("kept_queries", "queries", "%"),
        lambda output: getattr(numerics(output.report), "kept_queries", None),
        ".4g",
        sparse=True,
    ),
    *lift(
        lambda output: output.numerics,
        SQNR,
        TOKEN_SQNR,
        NumericsColumn("p5", "5% of tokens", "dB", lambda n: n.p5_token_db, ".1f"),
        NumericsColumn("max_abs_error", "max error", "", lambda n: n.max_abs_error, ".2g"),
        NumericsColumn("cosine", "cosine", "", lambda n: n.cosine, ".4f"),
    ),
)


def outputs(reports: Sequence[Report], title: str) -> Table[NamedOutput]:
    """Every output against FP32's, of reports that have several; the main one first."""
    measured = ((report, numerics(report)) for report in reports)
    rows = [
        NamedOutput(report, name, output)
        for report, section in measured
        for name, output in (section.outputs if section else {}).items()
    ]
    return Table(title, OUTPUTS, rows)


def bench(reports: Sequence[Report]) -> list[Table[Report]]:
    """What a page has of `bench` beside `proof`, a table for each kind of run."""
    groups = {
        "Cold start": COLD_START,
        "Drift under load": DRIFT,
        "Energy": ENERGY,
        "Size and memory": (*SIZES, *MEMORY),
    }
    return [Table(title, (ARTIFACT, *group), reports) for title, group in groups.items()]


def csv(reports: Sequence[Report]) -> Table[Setting]:
    """All that is in CSV: a row for each scenario and setting."""
    single: tuple[Column[Setting], ...] = lift(
        lambda s: s.report.latency if s.scenario == SINGLE else None, *RIVAL
    )
    conditions = section(lambda r: r.conditions, *CONDITIONS)
    host = section(lambda r: r.host, *HOST)
    cost = (*SIZES, *MEMORY, *COLD_START, *ENERGY, *DRIFT, *conditions, *host)
    columns = (
        *(*of_reports(ARTIFACT, *IDENTITY, *ACCURACY), SCENARIO, BATCH, STREAMS, THREADS),
        *(*timing_columns(), RUNS, *RATE, *single, *of_reports(*cost)),
    )
    shown = [column for column in columns if "csv" in column.on]
    return Table("", shown, [setting for report in reports for setting in settings(report)])

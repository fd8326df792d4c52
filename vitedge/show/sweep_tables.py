"""A sweep as tables: its trials, what they came to, and which to ship."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vitedge.core.host import fingerprint
from vitedge.core.report import Report
from vitedge.export.sweep.dry_run import PlannedTrial, SweepPlan
from vitedge.export.sweep.job import SweepResult
from vitedge.export.sweep.row import Row
from vitedge.show import columns
from vitedge.show.columns import ACCURACY, METRICS, SIZE, SPEEDUP, section
from vitedge.show.settings import single_stream, timing_columns
from vitedge.show.table import Column, Table, lift, only
from vitedge.show.text import number

_Row = Column[Row]
_Planned = Column[PlannedTrial]
CSV = ("csv",)
TRIAL = _Row("trial", "trial", "", lambda row: row.trial, kind="head")
IDENTITY = only(
    ("page", "csv"),
    _Row("model", "model", "", lambda row: row.model, kind="name"),
    _Row("target", "target", "", lambda row: row.target, kind="name"),
    _Row("precision", "precision", "", lambda row: row.precision, kind="word"),
    _Row("calibration", "recipe", "", lambda row: row.calibration, kind="word"),
)
PARAMETERS = _Row(
    "parameters", "parameters", "", lambda row: _pairs(row.parameters), kind="text", sparse=True
)
FRONT = _Row(
    "front", "on the\nfront", "", lambda row: row.front if row.report else None, kind="word"
)
COST = (
    *only(
        ("page", "csv"),
        _Row("seconds", "took", "s", lambda row: row.seconds or None, ".3g"),
        _Row("made", "steps made", "", lambda row: _pairs(row.made) or None, kind="text"),
        _Row("host", "host", "", lambda row: _host(row), kind="code"),
    ),
    *only(CSV, _Row("artifact_path", "artifact", "", lambda row: row.artifact, kind="text")),
)
ERROR = _Row("error", "failed", "", lambda row: row.error or None, kind="text", sparse=True)


def _pairs(values: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in dict(values).items())  # type: ignore[call-overload]


def _host(row: Row) -> str | None:
    """The fingerprint of what ran it: latencies of others do not compare."""
    host = row.report.host if row.report else None
    return fingerprint(host) if host else None


def _report(row: Row) -> Report | None:
    return row.report


def trials(result: SweepResult) -> Table[Row]:
    """A row for each trial, in the sweep's order."""
    reports = [row.report for row in result.rows if row.report]
    metrics = {METRICS[measured.metric] for r in reports if (measured := columns.accuracy(r))}
    first, *others = ACCURACY
    title = metrics.pop() if len(metrics) == 1 else "accuracy"
    figures = (
        *(replace(first, title=title), *others),
        *lift(single_stream, *timing_columns()),
        *section(lambda r: r.latency, SPEEDUP),
        *section(lambda r: r.size, SIZE),
    )
    shown = (TRIAL, *IDENTITY, PARAMETERS, *lift(_report, *figures), FRONT, *COST, ERROR)
    return Table("Trials", shown, result.rows, keeps_empty=True)


def decisions(result: SweepResult) -> Iterator[str]:
    """Which to ship of each model on each target, and why; and how many trials failed."""
    for ship in result.shipped:
        on = f" ({ship.host})" if ship.host else ""
        where = f"{ship.model} on {ship.target}{on}"
        what = f"ship {ship.trial}" if ship.trial else "ship nothing"
        yield f"{where}: {what}: {ship.reason}"
    if result.failed:
        yield f"{len(result.failed)} of {len(result.rows)} trials failed"


def planned(plan: SweepPlan) -> Table[PlannedTrial]:
    """A row for each trial that would be run."""
    shown = (
        _Planned("trial", "trial", "", lambda trial: trial.trial, kind="head"),
        _Planned("parameters", "parameters", "", lambda t: _pairs(t.parameters), kind="text"),
        _Planned("seconds", "about", "s", lambda trial: trial.seconds, ".2g"),
        _Planned("state", "state", "", lambda trial: trial.state, kind="text"),
    )
    return Table("Trials that would be run", shown, plan.trials)


def cost(plan: SweepPlan) -> str:
    """How many trials, and what they may take."""
    states = [trial.state for trial in plan.trials]
    trials = "1 trial" if len(states) == 1 else f"{len(states)} trials"
    counts = f"{trials}: {states.count('done')} done, {states.count('cached')} cached"
    if plan.seconds is None:
        return f"{counts}; what the others take is not known before one of their model was run"
    return f"{counts}; about {number(plan.seconds, '.2g')} s, one after the other"

"""A sweep as one page: what to ship, the fronts, every trial."""

from __future__ import annotations

import msgspec

from vitedge.core.report import Report
from vitedge.export.sweep.choice import groups
from vitedge.export.sweep.job import SweepResult
from vitedge.export.sweep.row import Row
from vitedge.show import sweep_tables
from vitedge.show.page import pareto, provenance
from vitedge.show.page.chart import Chart
from vitedge.show.page.shell import render as render_template
from vitedge.show.table import Table


def render(result: SweepResult, command: str) -> str:
    """The whole page of a sweep, by the `command` that was typed."""
    reports = [row.report for row in result.rows if row.report]
    return render_template(
        "sweep.html",
        title=f"{len(result.rows)} trials: vitedge sweep",
        decisions=list(sweep_tables.decisions(result)),
        pareto=_pictures(result),
        trials=sweep_tables.trials(result),
        machines=provenance.machines(reports),
        command=command,
    )


def _pictures(result: SweepResult) -> list[tuple[str, Chart, Table[pareto.ParetoPoint]]]:
    """A panel for each model on each target, of trials on like hosts."""
    panels: list[tuple[str, Chart, Table[pareto.ParetoPoint]]] = []
    for (model, target, _), rows in groups(result.rows).items():
        drawn = pareto.pictures([_named(row) for row in rows])
        panels += [(f"{model} on {target}: {head}", chart, table) for head, chart, table in drawn]
    return panels


def _named(row: Row) -> Report:
    """The report of a trial, under its name."""
    assert row.report is not None
    return msgspec.structs.replace(row.report, artifact=row.trial)

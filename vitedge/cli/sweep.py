"""`vitedge sweep`: parse, call one function, render."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitedge.cli.command import Call, command
from vitedge.cli.export import DryRun
from vitedge.cli.output import Json, print_json, say
from vitedge.export.sweep import api

if TYPE_CHECKING:
    from vitedge.export.sweep.job import Request, SweepResult


@command(api.sweep)
def sweep(call: Call[SweepResult], dry_run: DryRun = False, as_json: Json = False) -> None:
    from vitedge.export.sweep.job import first_error
    from vitedge.show import csv, sweep_tables
    from vitedge.show.page import provenance, shell
    from vitedge.show.page.sweep import render
    from vitedge.show.terminal import tables

    request = api.to_sweep(**call.complete())
    if dry_run:
        _plan(request, as_json)
        return
    result = call()
    csv.write_table(sweep_tables.trials(result), request.output / "sweep.csv")
    shell.write(render(result, provenance.typed()), request.output / "sweep.html")
    if as_json:
        print_json(result)
    else:
        tables.show(tables.grid(sweep_tables.trials(result)))
        for line in sweep_tables.decisions(result):
            say(line)
        say(f"{request.output}: sweep.html, sweep.csv, sweep.json, artifacts/")
    if error := first_error(result):
        raise error


def _plan(request: Request, as_json: bool) -> None:
    """Say what would be done."""
    from vitedge.core.progress import steps
    from vitedge.export.sweep.dry_run import dry_run
    from vitedge.show import sweep_tables
    from vitedge.show.terminal import tables

    with steps() as shown:
        plan = dry_run(request, shown)
    if as_json:
        print_json(plan)
        return
    tables.show(tables.grid(sweep_tables.planned(plan)))
    say(sweep_tables.cost(plan))

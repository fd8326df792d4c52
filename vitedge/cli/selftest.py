"""`vitedge selftest`: parse, call one function, render."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vitedge.cli.command import Call, command
from vitedge.cli.output import Json, print_json, say
from vitedge.export.selftest import api

if TYPE_CHECKING:
    from vitedge.export.selftest.record import Selftest


@command(api.selftest)
def selftest(call: Call[Selftest], as_json: Json = False) -> None:
    from pathlib import Path

    from vitedge.export.selftest.record import PAGE
    from vitedge.show.page import provenance, shell
    from vitedge.show.page.selftest import render
    from vitedge.show.terminal import selftest as selftest_tables
    from vitedge.show.terminal import tables

    record = call()
    planned, folder = bool(call.arguments["dry_run"]), Path(call.arguments["output"])
    if not planned:
        shell.write(render(record, provenance.typed()), folder / PAGE)
    if as_json:
        print_json(record)
    else:
        tables.show(selftest_tables.steps(record))
        for line in selftest_tables.summary(record):
            say(line)
        if not planned:
            typer.echo(f"evidence: {folder}/")
    raise typer.Exit(record.exit_code or 0)

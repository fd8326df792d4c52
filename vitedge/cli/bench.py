"""`vitedge bench`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli import devices
from vitedge.cli import fleet as fleets
from vitedge.cli.command import Call, command
from vitedge.cli.output import (
    Json,
    print_json,
    raise_first,
    say,
    say_int8_note,
    say_recommendations,
)
from vitedge.core.errors import InputError
from vitedge.measure import api

if TYPE_CHECKING:
    from vitedge.core.report import Report
    from vitedge.measure.remote.fleet import Units

Devices = Annotated[
    list[str] | None,
    typer.Option(
        help="Elsewhere: ssh://[user@]host[:port], or a target's .toml with one; repeatable.",
        show_default=False,
    ),
]


@command(api.bench, opens=True)
def bench(
    call: Call[list[Report]],
    context: typer.Context,
    device: Devices = None,
    fleet: Annotated[
        Path | None,
        typer.Option(help="The devices of a .toml, [[devices]] with address and labels."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every number to this file, too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots of it all.")] = None,
    as_json: Json = False,
) -> None:
    from vitedge.core import files
    from vitedge.core.runtime import runtime_of
    from vitedge.measure.accuracy import parity
    from vitedge.measure.latency.request import check
    from vitedge.show.csv import write
    from vitedge.show.page import provenance, shell
    from vitedge.show.page.bench import render
    from vitedge.show.terminal import bench as bench_tables
    from vitedge.show.terminal import tables

    parameters = call.complete()
    artifacts, against = parameters.pop("artifacts"), str(parameters["against"])
    request = api.bench_request(**parameters)
    if request.photographs:
        for reason, count in request.photographs.skipped.items():
            say(f"warning: {count} of the images drawn left out: {reason}", err=True)
    paths = api.to_bench(artifacts)
    if csv:
        files.check_writable(csv, "--csv")
    if html:
        shell.check_writable(html)
    bundles = [call.opened(path) for path in paths]
    over: list[Units] = []
    if fleet:
        if device:
            raise InputError("--fleet names the devices", fix="drop --device")
        check(request, bundles)
        reports, errors, over = fleets.bench(fleet, bundles, against, request.photographs, context)
    elif device:
        check(request, bundles)
        reports, errors = devices.bench(device, bundles, against, request.photographs, context)
    else:
        reports = call(artifacts=bundles)
        errors = [*parity.broken(reports), *parity.degenerate(reports)]
    if not reports:
        raise_first(errors)
    remote = bool(device or fleet)
    shown = devices.labelled(reports) if remote else reports
    now = [request.measured(report) for report in shown]
    if csv:
        write(now, csv)
    if html:
        measured = [request.measured(report) for report in reports]
        shell.write(render(measured, provenance.typed()), html)
    if as_json:
        if remote:
            print_json(devices.document(reports) | ({"fleet": over} if fleet else {}))
        else:
            print_json(reports[0] if len(reports) == 1 else {"reports": reports})
        raise_first(errors)
        return
    if "single-stream" in request.scenarios:
        tables.show(tables.reports(shown, f"latency in turn, against {against}"))
    for table in bench_tables.tables(now):
        tables.show(table)
    for line in bench_tables.facts(now):
        say(line)
    if "single-stream" in request.scenarios:
        say_recommendations(reports)
    for warning in bench_tables.warnings(now):
        say(f"warning: {warning}", err=True)
    processors = {runtime_of(bundle.manifest.target).processor for bundle in bundles}
    for line in fleets.lines(over):
        say(line)
    if not remote and "cpu" in processors:
        say_int8_note()
    raise_first(errors)

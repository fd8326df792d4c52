"""`vitedge bench`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitedge.cli import devices
from vitedge.cli.flags import command_line
from vitedge.cli.options import DEFAULT_OUTPUT
from vitedge.cli.output import (
    Json,
    print_json,
    raise_first,
    say,
    say_int8_note,
    say_recommendations,
)
from vitedge.core.errors import InputError
from vitedge.core.progress import steps

Devices = Annotated[
    list[str] | None,
    typer.Option(
        help="Elsewhere: ssh://[user@]host[:port], or a target's .toml with one; repeatable.",
        show_default=False,
    ),
]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="Inference threads; 0: all.")]


def bench(
    context: typer.Context,
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Artifacts to time; default: all in artifacts/.", show_default=False),
    ] = None,
    against: Annotated[str, typer.Option(help="'fp32', or another artifact.")] = "fp32",
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="single-stream (default) or offline; repeatable.", show_default=False),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Latency over 'threads' or 'batch'; repeatable.", show_default=False),
    ] = None,
    duration: Annotated[
        float, typer.Option(help="Seconds for each artifact and scenario; 10 or more show drift.")
    ] = 3.0,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a run.")] = None,
    threads: Threads = 0,
    streams: Annotated[
        int, typer.Option(min=0, max=1024, help="offline: runs at a time; 0: several, compared.")
    ] = 0,
    device: Devices = None,
    csv: Annotated[Path | None, typer.Option(help="Write every number to this file, too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots of it all.")] = None,
    as_json: Json = False,
) -> None:
    """Time artifacts in turn with FP32, so that a speed-up is a ratio of one run."""
    from vitedge.core import files
    from vitedge.core.bundle import bundles_in, open_bundle
    from vitedge.core.runtime import runtime_of
    from vitedge.measure.accuracy import parity
    from vitedge.measure.latency.bench import BenchRequest, bench_bundles, check
    from vitedge.show.csv import write
    from vitedge.show.page import provenance, shell
    from vitedge.show.page.bench import render
    from vitedge.show.terminal import bench as bench_tables
    from vitedge.show.terminal import tables

    request = BenchRequest(
        duration_s=duration,
        against=against,
        scenarios=tuple(dict.fromkeys(scenario or ["single-stream"])),
        sweeps=tuple(dict.fromkeys(sweep or [])),
        batch=batch,
        threads=threads,
        streams=streams,
    )
    paths = artifacts or bundles_in(DEFAULT_OUTPUT)
    if not paths:
        raise InputError(f"no artifacts in {DEFAULT_OUTPUT}/", fix="make one with 'vitedge export'")
    if csv:
        files.check_writable(csv, "--csv")
    if html:
        shell.check_writable(html)
    bundles = [open_bundle(path) for path in paths]
    if device:
        check(request, bundles)
        reports, errors = devices.bench(device, bundles, against, context)
    else:
        with steps(wording=command_line) as progress:
            reports, _ = bench_bundles(bundles, progress, request)
        errors = parity.broken(reports)
    if not reports:
        raise_first(errors)
    shown = devices.labelled(reports) if device else reports
    now = [request.measured(report) for report in shown]
    if csv:
        write(now, csv)
    if html:
        measured = [request.measured(report) for report in reports]
        shell.write(render(measured, provenance.typed()), html)
    if as_json:
        if device:
            print_json(devices.document(reports))
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
    if not device and "cpu" in processors:
        say_int8_note()
    raise_first(errors)

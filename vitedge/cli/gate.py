"""`vitedge gate` and `vitedge compare`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli.command import Call, command
from vitedge.cli.output import Json, print_json, say
from vitedge.gate import api
from vitedge.gate.limits import LIMITS

if TYPE_CHECKING:
    from vitedge.gate.compare import ArtifactComparison
    from vitedge.gate.verdict import Verdict


@command(api.gate, limits={name: limit.description for name, limit in LIMITS.items()})
def gate(
    call: Call[Verdict],
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    write: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMAT=FILE",
            help="Write the verdict as junit, markdown, json, or (for github-action-benchmark) "
            "smaller-is-better or bigger-is-better; may be repeated.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page: what moved, and where the limits lie.")
    ] = None,
    as_json: Json = False,
) -> None:
    import os

    from vitedge.gate.run import EXIT_CODES
    from vitedge.show.ci import outputs
    from vitedge.show.page import artifacts, provenance, shell
    from vitedge.show.page.gate import render
    from vitedge.show.terminal import gate as gate_tables
    from vitedge.show.terminal import tables

    others = tuple(
        (path, option)
        for path, option in ((html, "--html"), (call.arguments.get("baseline"), "--baseline"))
        if path
    )
    planned = outputs.plan(junit, write or (), os.environ, others)
    if html:
        shell.check_writable(html)
    verdict = call()
    planned.write(verdict)
    if html:
        page = render(verdict, artifacts.gather(verdict), provenance.typed())
        shell.write(page, html)
    if as_json:
        print_json(verdict)
    else:
        tables.show(gate_tables.verdict(verdict))
        for line in gate_tables.reasons(verdict):
            say(line)
        if call.arguments["accept"]:
            passed = verdict.answer == "passed"
            typer.echo("accepted: it is the baseline now" if passed else "not accepted")
    raise typer.Exit(EXIT_CODES[verdict.answer])


@command(api.compare)
def compare(call: Call[ArtifactComparison], as_json: Json = False) -> None:
    from vitedge.show.terminal import compare as comparison_tables
    from vitedge.show.terminal import tables

    comparison = call()
    if as_json:
        print_json(comparison)
        return
    tables.show(comparison_tables.comparison(comparison))
    for line in comparison_tables.remarks(comparison):
        say(line)

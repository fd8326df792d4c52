"""`vitedge gate` and `vitedge compare`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, print_json, say
from vitedge.core.progress import steps


def gate(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Artifacts or reports; default: those that vitedge.toml or pyproject.toml names.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest accuracy lost, percentage points.")
    ] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Least speed-up over FP32.")] = None,
    max_p90_ms: Annotated[float | None, typer.Option(help="Longest p90, milliseconds.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Largest size, MB.")] = None,
    max_rss_mb: Annotated[float | None, typer.Option(help="Largest peak RSS, MB.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least share of images on which both agree, 0-1.")
    ] = None,
    min_sqnr_db: Annotated[float | None, typer.Option(help="Least SQNR, dB.")] = None,
    min_top1: Annotated[float | None, typer.Option(help="Least top-1, 0-1.")] = None,
    min_miou: Annotated[float | None, typer.Option(help="Least mIoU, 0-1.")] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(help="Longest latency over the baseline's, both relative to FP32's."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The last accepted artifacts: compare with them, too.")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Where all passed, write them to --baseline.")
    ] = False,
    confidence: Annotated[
        float | None, typer.Option(help="One-sided, of each interval; default 0.95.")
    ] = None,
    data: Annotated[str, typer.Option(help="Validate artifacts on these images first.")] = "",
    duration: Annotated[
        float, typer.Option(help="Time artifacts for so many seconds first; 0: use the report.")
    ] = 0.0,
    config: Annotated[
        Path | None,
        typer.Option(help="Limits; default: vitedge.toml, else [tool.vitedge.gate]."),
    ] = None,
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
    """Pass or fail artifacts by limits, or say that the evidence is too thin (exit 4)."""
    import os

    from vitedge.gate import config as configuration
    from vitedge.gate.run import EXIT_CODES, GateRequest, run
    from vitedge.show.ci import outputs
    from vitedge.show.page import artifacts, provenance, shell
    from vitedge.show.page.gate import render
    from vitedge.show.terminal import gate as gate_tables
    from vitedge.show.terminal import tables

    limits = {
        "max_drop_pp": max_drop,
        "min_speedup": min_speedup,
        "max_p90_ms": max_p90_ms,
        "max_slowdown": max_slowdown,
        "max_size_mb": max_size_mb,
        "max_rss_mb": max_rss_mb,
        "min_agreement": min_agreement,
        "min_sqnr_db": min_sqnr_db,
        "min_top1": min_top1,
        "min_miou": min_miou,
    }
    request = GateRequest(
        sources=tuple(sources or ()),
        limits=configuration.options(limits),
        confidence=confidence,
        baseline=baseline,
        accept=accept,
        data=data,
        duration_s=duration,
        config=config,
    )
    others = tuple(
        (path, option) for path, option in ((html, "--html"), (baseline, "--baseline")) if path
    )
    planned = outputs.plan(junit, write or (), os.environ, others)
    if html:
        shell.check_writable(html)
    with steps(wording=command_line) as progress:
        verdict = run(request, progress)
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
        if accept:
            passed = verdict.answer == "passed"
            typer.echo("accepted: it is the baseline now" if passed else "not accepted")
    raise typer.Exit(EXIT_CODES[verdict.answer])


def compare(
    first: Annotated[Path, typer.Argument(help="An artifact or a report.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another of its model.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show two artifacts of one model side by side: what the second loses, and how much faster."""
    from vitedge.gate.compare import compare
    from vitedge.show.terminal import compare as comparison_tables
    from vitedge.show.terminal import tables

    comparison = compare(first, second)
    if as_json:
        print_json(comparison)
        return
    tables.show(comparison_tables.comparison(comparison))
    for line in comparison_tables.remarks(comparison):
        say(line)

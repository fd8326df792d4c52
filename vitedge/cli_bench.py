"""`vitedge bench`: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitedge import cli_devices
from vitedge.cli_options import DEFAULT_OUTPUT
from vitedge.cli_output import Json, print_json, say_int8_note, say_recommendations
from vitedge.errors import InputError

Threads = Annotated[int, typer.Option(min=0, max=1024, help="Inference threads; 0: all.")]


Devices = Annotated[
    list[str],
    typer.Option(help="Where to: ssh://[user@]host[:port], or a target's .toml with one; repeat."),
]


def bench(
    context: typer.Context,
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Artifacts to time; default: all in artifacts/.", show_default=False),
    ] = None,
    against: Annotated[str, typer.Option(help="'fp32', or another artifact.")] = "fp32",
    duration: Annotated[float, typer.Option(help="Seconds for each artifact.")] = 3.0,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a run.")] = None,
    threads: Threads = 0,
    device: Devices = [],  # noqa: B006 - typer copies it
    as_json: Json = False,
) -> None:
    """Time artifacts in turn with FP32, so that a speed-up is a ratio of one run."""
    from vitedge import proof, tables
    from vitedge.artifact import bundles_in, open_bundle
    from vitedge.progress import steps

    paths = artifacts or bundles_in(DEFAULT_OUTPUT)
    if not paths:
        raise InputError(f"no artifacts in {DEFAULT_OUTPUT}/", fix="make one with 'vitedge export'")
    bundles = [open_bundle(path) for path in paths]
    if device:
        cli_devices.bench(device, bundles, against, context, as_json=as_json)
        return
    with steps() as progress:
        reports, _ = proof.bench_bundles(
            bundles,
            progress,
            against=against,
            duration_s=duration,
            batch=batch,
            threads=threads,
        )
    if as_json:
        print_json(reports[0] if len(reports) == 1 else {"reports": reports})
        proof.demand_parity(reports)
        return
    tables.show(tables.reports(reports, f"latency in turn, against {against}"))
    say_recommendations(reports)
    if any(bundle.manifest.build is None for bundle in bundles):  # of a CPU
        say_int8_note()
    proof.demand_parity(reports)

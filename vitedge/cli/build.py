"""The command that compiles an engine which could not be built where it was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, print_json
from vitedge.core.progress import steps


def build(
    artifact: Annotated[Path, typer.Argument(help="An artifact's folder.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Build an engine that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Compile the engine of an artifact on this machine: TensorRT's are built on the device."""
    from vitedge.export import build as building
    from vitedge.measure.inspection import notes
    from vitedge.show.terminal import tables

    with steps(wording=command_line) as progress:
        bundle = building.build(artifact, progress, force=force)
    record = bundle.manifest.build
    if as_json:
        print_json({"path": str(artifact), "build": record})
        return
    typer.echo(f"{artifact} has its engine: {bundle.size_bytes / 2**20:.1f} MiB")
    if record and record.compiled:
        typer.echo(notes.compiled(record.compiled))
    typer.echo(tables.next_commands([artifact]))

"""The command that looks inside an artifact, or anybody's ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli.flags import command_line
from vitedge.cli.output import Form, Json, print_json
from vitedge.core.errors import InputError

if TYPE_CHECKING:
    from vitedge.measure.inspection import Inspection


def inspect(
    source: Annotated[
        Path, typer.Argument(help="An artifact's folder, or FILE.onnx.", show_default=False)
    ],
    target: Annotated[
        str, typer.Option(help="Check against this target; default: the artifact's own.")
    ] = "",
    html: Annotated[
        Path | None, typer.Option(help="Write a page with a picture of error against depth.")
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("--as", help="Print the commands of NVIDIA's own tools instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is quantized and why, what each layer loses, and what the target minds."""
    from vitedge.measure.inspection import inspect as inspector
    from vitedge.runtimes.tensorrt import trtexec
    from vitedge.show.page import inspection as page
    from vitedge.show.page import shell
    from vitedge.show.terminal import inspection as table

    if form and html:
        raise InputError("--as prints commands, --html writes a page", fix="pass one of them")
    if form:
        commands = trtexec.commands(source, target)
        print_json(commands) if as_json else trtexec.show(commands)
        return
    if html:
        shell.check_writable(html)
    inspection = _typed(inspector.inspect(source, target))
    if html:
        shell.write(page.render(inspection), html)
    if as_json:
        print_json(inspection)
        return
    table.show(inspection)


def _typed(inspection: Inspection) -> Inspection:
    """What it says of parameters, in the words of the command line."""
    from msgspec.structs import replace

    layers = tuple(replace(row, why=command_line(row.why)) for row in inspection.layers)
    return replace(inspection, layers=layers, notes=tuple(map(command_line, inspection.notes)))

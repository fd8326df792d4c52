"""What every command prints alike: one JSON document, and a warning on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitedge.cli.flags import command_line
from vitedge.core.errors import VitedgeError

if TYPE_CHECKING:
    from vitedge.core.report import Report
    from vitedge.export.result import ExportResult

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class Form(str, Enum):
    """What `inspect` can print in place of its tables."""

    trtexec = "trtexec"


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say(text: str, *, err: bool = False) -> None:
    """Print a line of the library's as the command line puts it."""
    typer.echo(command_line(text), err=err)


def say_error(error: VitedgeError) -> None:
    """What is wrong, and how to mend it, on stderr."""
    say("\n  fix: ".join(filter(None, [f"error: {error.what}", error.fix])), err=True)


def raise_first(errors: Sequence[VitedgeError]) -> None:
    """Say all but the first of `errors`, and raise that one; none: nothing happens."""
    for error in errors[1:]:
        say_error(error)
    if errors:
        raise errors[0]


def say_int8_note() -> None:
    """Warn on stderr where the CPU gives INT8 no advantage."""
    from vitedge.core.host import int8_note
    from vitedge.core.machine import describe_machine

    note = int8_note(describe_machine(threads=0))
    if note:
        say(f"note: {note}", err=True)


def say_recommendations(reports: list[Report]) -> None:
    """Which precision to ship, a line for each target that was timed with FP32."""
    from vitedge.show.terminal import tables

    for line in tables.recommendations(reports):
        say(line)


def show_export(artifacts: Sequence[ExportResult], output: Path, *, as_json: bool) -> None:
    """What an export has made, in `output`."""
    from vitedge.measure.inspection import notes
    from vitedge.show.terminal import tables

    if as_json:
        print_json(
            {
                "artifacts": [
                    {
                        "path": str(artifact.bundle.path),
                        "parity": artifact.bundle.manifest.parity,
                        "report": artifact.report,
                    }
                    for artifact in artifacts
                ]
            }
        )
        return
    parity = artifacts[0].bundle.manifest.parity
    typer.echo(
        f"FP32 ONNX agrees with its source: max abs error {parity.max_abs_error:.1e} "
        f"({parity.max_rel_error:.1e} relative)"
    )
    tables.show(
        tables.reports([artifact.report for artifact in artifacts], f"artifacts in {output}")
    )
    for manifest in (artifact.bundle.manifest for artifact in artifacts):
        for fact in notes.facts(manifest):
            say(f"{manifest.name}: {fact}")
    say_recommendations([artifact.report for artifact in artifacts])
    for note in (note for artifact in artifacts for note in artifact.notes()):
        say(f"note: {note}", err=True)
    typer.echo(tables.next_commands([artifact.bundle.path for artifact in artifacts]))

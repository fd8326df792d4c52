"""What every command prints alike: one JSON document, and a warning on stderr."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


class Form(str, Enum):
    """What `inspect` can print in place of its tables."""

    trtexec = "trtexec"


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say_int8_note() -> None:
    """Warn on stderr where the CPU gives INT8 no advantage."""
    from vitedge import host

    note = host.int8_note(host.describe(threads=0))
    if note:
        typer.echo(f"note: {note}", err=True)

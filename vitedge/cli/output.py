"""What every command prints alike: one JSON document, and a warning on stderr."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitedge.cli.flags import command_line
from vitedge.core.errors import VitedgeError
from vitedge.core.terminal import shortened

if TYPE_CHECKING:
    from vitedge.core.report import Report

LONGEST = 4000
"""Characters of a message."""
_STEERING = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
"""What JSON leaves as it is, and a terminal does not show."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    typer.echo(_STEERING.sub(lambda char: json.dumps(char[0])[1:-1], text))


def say(text: str, *, err: bool = False) -> None:
    """Print a line of the library's as the command line puts it."""
    typer.echo(command_line(text), err=err)


def say_error(error: VitedgeError) -> None:
    """What is wrong, and how to mend it, on stderr, each on one line whatever it names."""
    texts = (f"error: {error.what}", error.fix)
    what, fix = (shortened(" ".join(text.splitlines()), LONGEST) for text in texts)
    say("\n  fix: ".join(filter(None, [what, fix])), err=True)


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

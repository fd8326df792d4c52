"""From the library's parameters to the command line's flags: `calib_data` is --calib-data here."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Collection
from functools import cache
from itertools import chain

import typer

EXCEPTIONS = {
    "targets": "target",
    "scenarios": "scenario",
    "sweeps": "sweep",
    "devices": "device",
    "max_drop_pp": "max-drop",
    "duration_s": "duration",
    "form": "as",
}
"""Parameters whose flag is not simply their name: a list's flag is repeated, a unit is left out."""

APPS: list[typer.Typer] = []
"""Those whose flags are known; `cli.main` adds its own."""
_PRECISIONS = ("int8", "fp8", "bf16", "fp16", "fp32")
_MENTION = re.compile(
    r"(?<!field )`(\w+)(?:=([^`]+))?`"
)  # msgspec's 'unknown field `name`' is TOML


def flag(parameter: str) -> str:
    """The flag of an API function's `parameter`."""
    return "--" + EXCEPTIONS.get(parameter, parameter).replace("_", "-")


def command_line(text: str, flags: Collection[str] = ()) -> str:
    """A library's `text` with its parameters in backticks, `force=True`, as flags: --force.

    What is none of `flags` (default: of any command's) stays as it is.
    """
    return _MENTION.sub(lambda mention: _typed(mention, flags), text)


def _typed(mention: re.Match[str], flags: Collection[str]) -> str:
    """One parameter as a user types it, its value with it."""
    name, value = mention.groups()
    values = _words(value) if value else [""]
    if name == "precision":
        precisions = [f"--{word}" for word in values if word in _PRECISIONS]
        return " or ".join(precisions or [f"--{word}" for word in _PRECISIONS])
    if flag(name) not in (flags or _known()) or not values:
        return mention[0]
    return " ".join(f"{flag(name)} {shlex.quote(word) if word else ''}".rstrip() for word in values)


def _words(value: str) -> list[str]:
    """A value in Python notation as what follows its flag; nothing where a flag cannot say it."""
    try:
        constant = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a name of what to put there: `weights=FILE`
        return [value]
    if constant is True:
        return [""]
    if isinstance(constant, (list, tuple)):
        return [str(item) for item in constant]
    return [constant] if isinstance(constant, str) else [] if constant in (None, False) else [value]


@cache
def _known() -> frozenset[str]:
    """Every flag of every command."""
    commands = [typer.main.get_group(app) for app in APPS]
    options = chain.from_iterable(c.params for group in commands for c in group.commands.values())
    return frozenset(name for option in options for name in option.opts)

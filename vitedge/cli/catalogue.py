"""The commands that say what there is: targets, recipes, models, and this machine."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from vitedge.cli.output import Json, print_json, say_int8_note
from vitedge.core.errors import InputError, nearest


class Listing(str, Enum):
    """What a catalogue command does."""

    list = "list"
    show = "show"


Action = Annotated[Listing, typer.Argument(help="What to do.")]
Name = Annotated[str, typer.Argument(help="With show: which one.")]


def targets(action: Action = Listing.list, name: Name = "", as_json: Json = False) -> None:
    """The devices and runtimes artifacts are built for."""
    from vitedge.core import catalog

    _catalogue("target", catalog.targets(), action, name, as_json)


def calibrations(action: Action = Listing.list, name: Name = "", as_json: Json = False) -> None:
    """The recipes that choose calibration images and ranges."""
    from vitedge.core import catalog

    _catalogue("calibration recipe", catalog.calibrations(), action, name, as_json)


def models(action: Action = Listing.list, name: Name = "", as_json: Json = False) -> None:
    """The models vitedge knows by name."""
    from vitedge.models.zoo import ZOO

    cards = {key: model.card() for key, model in ZOO.items()}
    _catalogue("model", cards, action, name, as_json, columns=("params", "macs", "task"))


def doctor(as_json: Json = False) -> None:
    """Say what this machine can run, and what is missing."""
    from vitedge.runtimes import doctor as checks
    from vitedge.show.terminal import tables

    findings = checks.doctor()
    if as_json:
        print_json(findings)
        return
    typer.echo(findings.machine)
    rows = [(c.name, c.status, c.detail) for c in findings.checks]
    tables.show(tables.listing(("what", "here", "detail"), rows))
    say_int8_note()


def _catalogue(
    what: str,
    known: dict[str, Any],
    action: Listing,
    name: str,
    as_json: bool,
    columns: tuple[str, ...] = ("description",),
) -> None:
    """Print a list of `known`, or the one called `name`."""
    import msgspec

    from vitedge.show.terminal import tables

    plain = {key: msgspec.to_builtins(entry) for key, entry in known.items()}
    if action is Listing.list:
        if name:
            raise InputError(f"'list' takes no name, but got '{name}'", fix=f"use 'show {name}'")
        if as_json:
            print_json(list(plain.values()))
            return
        rows = [(key, *(tables.plain(entry[c]) for c in columns)) for key, entry in plain.items()]
        tables.show(tables.listing(("name", *columns), rows))
        return
    if name not in plain:
        problem = f"unknown {what} '{name}'" if name else f"which {what}?"
        raise InputError(problem, fix=nearest(name, plain))
    if as_json:
        print_json(plain[name])
        return
    rows = [(key, tables.plain(value)) for key, value in plain[name].items()]
    tables.show(tables.listing(("key", "value"), rows))


COMMANDS = (targets, calibrations, models, doctor)

"""`vitedge bench --device`: the same command on other machines, a row for each in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vitedge.cli_output import print_json
from vitedge.errors import VitedgeError

if TYPE_CHECKING:
    from vitedge.artifact import Bundle

LOCAL = {"artifacts", "against", "device", "as_json"}
"""What concerns this machine alone; every other option given goes to the device as it is."""


def forwarded(context: typer.Context) -> list[str]:
    """The options that the user has typed and that a device is to be given, too."""
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in LOCAL or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            flags = option.opts if value else option.secondary_opts
            words += flags[:1]
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            words += [option.opts[0], str(each)]
    return words


def bench(
    devices: Sequence[str],
    bundles: Sequence[Bundle],
    against: str,
    context: typer.Context,
    *,
    as_json: bool,
) -> None:
    """Bench on every device, keep each one's reports, and show them together."""
    from vitedge import report, tables
    from vitedge.artifact import open_bundle
    from vitedge.progress import steps
    from vitedge.remote import bench as remote
    from vitedge.remote.address import parse

    addresses = [parse(text) for text in dict.fromkeys(devices)]
    rival = None if against == "fp32" else open_bundle(Path(against))
    for bundle in bundles:
        report.check_writable(bundle)
    with steps() as progress:
        measured = remote.bench(addresses, bundles, rival, forwarded(context), progress)
    kept = {
        one.address.text: [
            report.keep(bundle, found, one.address.text, one.address.slug)
            for bundle, found in zip(bundles, one.reports, strict=True)
        ]
        for one in measured
        if one.reports
    }
    if as_json:
        print_json({"devices": [{"device": at, "reports": r} for at, r in kept.items()]})
    elif kept:
        tables.show(tables.devices(kept, f"latency in turn, against {against}"))
        for at, reports in kept.items():
            for line in tables.recommendations(reports):
                typer.echo(f"{at}: {line}")
    raise_first([one.error for one in measured if one.error])


def raise_first(errors: Sequence[VitedgeError]) -> None:
    """Say all but the first of `errors`, and raise that one."""
    for error in errors[1:]:
        typer.echo(f"error: {error.what}", err=True)
        if error.fix:
            typer.echo(f"  fix: {error.fix}", err=True)
    if errors:
        raise errors[0]

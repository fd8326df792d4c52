"""The commands that sign, verify and package an artifact: parse, call one function, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli.command import Call, command
from vitedge.cli.output import Json, print_json
from vitedge.ship import api

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.signature import Signature
    from vitedge.ship.hub import Pushed
    from vitedge.ship.package import Package


@command(api.sign)
def sign(call: Call[Signature], as_json: Json = False) -> None:
    _show("signed", call, as_json)


@command(api.verify)
def verify(call: Call[Signature], as_json: Json = False) -> None:
    _show("verified", call, as_json)


@command(api.package, opens=True)
def package(call: Call[Package], as_json: Json = False) -> None:
    from vitedge.show.text import one_line

    package = call(artifact=call.opened(call.arguments["artifact"]))
    if as_json:
        print_json(package)
        return
    size = sum(package.sizes.values()) / 2**20
    typer.echo(f"{package.path}: {len(package.sizes)} files, {size:.1f} MiB")
    for line in package.commands:
        typer.echo(f"  {one_line(line)}")


@command(api.card, opens=True)
def card(
    call: Call[str],
    output: Annotated[Path | None, typer.Option(help="Write it there, and not to stdout.")] = None,
) -> None:
    from vitedge.core import files

    if output:
        files.check_writable(output, "--output")
    text = call(artifact=call.opened(call.arguments["artifact"]))
    if output:
        files.write(output, text)
    else:
        typer.echo(text, nl=False)


@command(api.push, opens=True)
def push(call: Call[Pushed], as_json: Json = False) -> None:
    pushed = call(artifact=call.opened(call.arguments["artifact"]))
    if as_json:
        print_json(pushed)
        return
    typer.echo(f"{pushed.artifact}: {len(pushed.files)} files in {pushed.repository}\n{pushed.url}")


@command(api.pull)
def pull(call: Call[Bundle], as_json: Json = False) -> None:
    bundle = call()
    if as_json:
        print_json({"path": str(bundle.path), "files": sorted(bundle.manifest.files)})
        return
    typer.echo(f"{bundle.path}: {len(bundle.manifest.files)} files, verified")


def _show(done: str, call: Call[Signature], as_json: bool) -> None:
    from vitedge.show.text import one_line

    signature = call()
    if as_json:
        print_json(signature)
        return
    reports = ", ".join(map(one_line, sorted(signature.reports))) or "no report"
    typer.echo(
        f"{call.arguments['artifact']}: {done}, {len(signature.listed)} files and {reports}\n"
        f"by {one_line(signature.key)} (SHA-256 {signature.fingerprint}), which says "
        f"{one_line(signature.signed_at) or 'no date'}"
    )

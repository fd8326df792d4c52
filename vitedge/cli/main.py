"""The command line: parse, call one function, render. No logic, and nothing heavy imported."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from vitedge import __version__
from vitedge.cli import artifacts, bench, catalogue, data, export, gate, selftest, ship, sweep
from vitedge.cli.flags import APPS
from vitedge.cli.output import say_error
from vitedge.core.errors import VitedgeError
from vitedge.core.terminal import text_only

app = typer.Typer(
    help="Vision Transformers to INT8 on edge runtimes, with accuracy and latency proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


INTERRUPTED = 128 + signal.SIGINT  # the shell's code for a command stopped by Ctrl-C


@app.callback(invoke_without_command=True)
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and those of runtimes here.")
    ] = False,
) -> None:
    if version:
        from vitedge.runtimes.doctor import versions

        typer.echo(__version__)
        for name, installed in versions().items():
            typer.echo(f"{name} {installed}")
        raise typer.Exit
    _Debug.on = debug


class _Debug:
    """Whether --debug was given."""

    on = False


for command in (
    *(export.demo, data.check_data, export.export, export.qat, export.build),
    *(artifacts.validate, artifacts.predict, bench.bench, sweep.sweep, gate.gate, gate.compare),
    *(selftest.selftest, ship.sign, ship.verify, ship.package, ship.card, ship.push, ship.pull),
    *(artifacts.inspect, *catalogue.COMMANDS),
):
    app.command()(command)
APPS.append(app)


@contextmanager
def _errors_to_exit_codes() -> Iterator[None]:
    """One message and the right exit code instead of a traceback."""
    stopped = False

    def stop(signum: int, frame: Any) -> None:
        nonlocal stopped
        stopped = True
        signal.default_int_handler(signum, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        done = isinstance(error, SystemExit) and not error.code
        if done or (_Debug.on and not isinstance(error, SystemExit)):
            raise
        if stopped:  # a library's own clean-up may have put another error in its place
            typer.echo("interrupted: no artifact was left half-written", err=True)
            sys.exit(INTERRUPTED)
        if not isinstance(error, VitedgeError):
            raise
        say_error(error)
        sys.exit(error.exit_code)


def run() -> None:
    """The `vitedge` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal and log has every sign
    text_only()
    with _errors_to_exit_codes():
        app()

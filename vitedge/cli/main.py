"""The command line: parse, call one function, render. No logic, and nothing heavy imported."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from vitedge import __version__
from vitedge.cli import catalogue
from vitedge.cli.bench import bench
from vitedge.cli.build import build
from vitedge.cli.export import export
from vitedge.cli.flags import APPS, command_line
from vitedge.cli.gate import compare, gate
from vitedge.cli.inspect import inspect
from vitedge.cli.options import DEFAULT_OUTPUT, Output
from vitedge.cli.output import (
    Json,
    print_json,
    raise_first,
    say_error,
    say_int8_note,
    say_recommendations,
)
from vitedge.cli.qat import qat
from vitedge.core.errors import VitedgeError
from vitedge.core.progress import steps

app = typer.Typer(
    help="Vision Transformers to INT8 on edge runtimes, with accuracy and latency proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


INTERRUPTED = 128 + signal.SIGINT  # the shell's code for a command stopped by Ctrl-C
EVALUATION_IMAGES = "Images to measure on: folder, .npz, 'digits' or 'shapes'."

Artifact = Annotated[Path, typer.Argument(help="An artifact's folder.", show_default=False)]


@app.callback(invoke_without_command=True)
def main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    _Debug.on = debug


class _Debug:
    """Whether --debug was given."""

    on = False


@app.command()
def demo(output: Output = DEFAULT_OUTPUT, as_json: Json = False) -> None:
    """Run the whole job on the embedded reference model and real images."""
    from vitedge.export import demo as job
    from vitedge.show.terminal import tables

    with steps(wording=command_line) as progress:
        result = job.run(output, progress)
    if as_json:
        print_json(
            {
                "torch": {"accuracy": result.torch_accuracy, "latency": result.torch_latency},
                "artifacts": [
                    {"path": str(path), "report": report}
                    for path, report in zip(result.paths, result.reports, strict=True)
                ],
            }
        )
        return
    tables.show(tables.demo(result))
    say_recommendations(result.reports)
    say_int8_note()
    typer.echo(tables.next_commands(result.paths))


@app.command()
def validate(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=EVALUATION_IMAGES)] = "",
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept calibration images.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure an artifact's accuracy and numerics against FP32; without images, its parity."""
    from vitedge.core.bundle import open_bundle
    from vitedge.measure.accuracy import parity
    from vitedge.measure.accuracy.bundle_validation import (
        evaluation_images,
        has_own_images,
        validate_bundle,
    )
    from vitedge.show.terminal import tables

    bundle = open_bundle(artifact)
    if not data and not has_own_images(bundle):
        report = parity.check(bundle)
        if as_json:
            print_json(report)
        else:
            tables.show(tables.reports([report], f"{artifact}"))
            assert report.parity is not None
            typer.echo(tables.parity(report.parity))
        raise_first(parity.broken([report]))
        return
    with steps(wording=command_line) as progress:
        report = validate_bundle(
            bundle, evaluation_images(bundle, data), progress, allow_overlap=allow_overlap
        )
    if as_json:
        print_json(report)
        return
    tables.show(tables.reports([report], f"{artifact}"))
    accuracy = report.accuracy
    assert accuracy is not None
    skipped = "".join(f"; skipped {n}: {why}" for why, n in accuracy.skipped.items())
    typer.echo(f"{accuracy.n} images of {accuracy.data}{skipped}")


for command in (bench, gate, compare, export, qat, inspect, build, *catalogue.COMMANDS):
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
    with _errors_to_exit_codes():
        app()

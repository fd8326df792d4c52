"""The command line: parse, call one function, render. No logic, and nothing heavy imported."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitedge import __version__, cli_catalogue
from vitedge.cli_build import build
from vitedge.cli_inspect import inspect
from vitedge.cli_output import Json, print_json, say_int8_note
from vitedge.errors import InputError, VitedgeError, nearest

if TYPE_CHECKING:
    from vitedge.spec import Batch, Precision, Task

app = typer.Typer(
    help="Vision Transformers to INT8 on edge runtimes, with accuracy and latency proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


INTERRUPTED = 128 + signal.SIGINT  # the shell's code for a command stopped by Ctrl-C
DEFAULT_OUTPUT = Path("artifacts")
EVALUATION_IMAGES = "Images to measure on: folder, .npz, 'digits' or 'shapes'."

Output = Annotated[Path, typer.Option(help="Folder that holds the artifacts.")]
Artifact = Annotated[Path, typer.Argument(help="An artifact's folder.", show_default=False)]
Threads = Annotated[int, typer.Option(min=0, max=1024, help="Inference threads; 0: all.")]


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
    from vitedge import demo as job
    from vitedge import tables
    from vitedge.progress import steps

    with steps() as progress:
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
    _say_recommendations(result.reports)
    say_int8_note()
    typer.echo(tables.next_commands(result.paths))


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Empty: the embedded reference. Else a name of 'vitedge models list', timm:NAME, "
            "hf:ID-or-directory, torchvision:NAME, FILE.onnx, or FILE.safetensors / .pt / .npz "
            "with --arch.",
            show_default=False,
        ),
    ] = "",
    target: Annotated[
        list[str] | None, typer.Option(help="A target, or a runtime for the target that fits here.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to INT8.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half precision, guarded against overflow.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Single precision; the default.")] = False,
    calib_data: Annotated[
        str, typer.Option(help="Calibration images: folder, .npz, 'digits', 'shapes' or 'random'.")
    ] = "",
    calibration: Annotated[str, typer.Option(help="Calibration recipe, or a .toml.")] = "default",
    num_samples: Annotated[
        int | None, typer.Option(min=1, help="Calibration images; default: the recipe's.")
    ] = None,
    eval_data: Annotated[
        str, typer.Option(help="Labelled images: folder, .npz, 'digits' or 'shapes'.")
    ] = "",
    max_drop: Annotated[
        float | None, typer.Option(help="Keep layers in float until accuracy drops no more points.")
    ] = None,
    duration: Annotated[
        float,
        typer.Option(help="Seconds of timing for each precision; 0: none, and no recommendation."),
    ] = 2.0,
    weights: Annotated[Path | None, typer.Option(help="Weights of a named model.")] = None,
    arch: Annotated[str, typer.Option(help="Architecture of a weights file.")] = "",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights: latency only.")
    ] = False,
    task: Annotated[
        str, typer.Option(help="classification, segmentation or features; default: the source's.")
    ] = "",
    preprocess: Annotated[Path | None, typer.Option(help="Preprocessing, a .toml.")] = None,
    batch: Annotated[str, typer.Option(help="Images a run, or 'dynamic'.")] = "",
    opset: Annotated[int | None, typer.Option(help="ONNX opset; default: the target's.")] = None,
    output: Output = DEFAULT_OUTPUT,
    force: Annotated[bool, typer.Option("--force", help="Replace existing artifacts.")] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Evaluate on calibration images, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a model to one or more targets, and prove each artifact against FP32."""
    from vitedge import pipeline, tables
    from vitedge.models.sources import Request
    from vitedge.plan import ExportRequest
    from vitedge.progress import steps

    if not target:
        raise InputError("no target given", fix="pass --target; see 'vitedge targets list'")
    request = ExportRequest(
        model=Request(model, arch, weights, preprocess, random_weights, _task(task)),
        targets=tuple(target),
        precision=_precision(int8, fp16, fp32),
        calib_data=calib_data,
        calibration=calibration,
        num_samples=num_samples,
        eval_data=eval_data,
        max_drop_pp=max_drop,
        duration_s=duration,
        batch=_batch(batch),
        opset=opset,
        output=output,
        force=force,
        allow_overlap=allow_overlap,
    )
    with steps() as progress:
        made = pipeline.export(request, progress)
    if as_json:
        print_json(
            {
                "artifacts": [
                    {
                        "path": str(m.bundle.path),
                        "parity": m.bundle.manifest.parity,
                        "report": m.report,
                    }
                    for m in made
                ]
            }
        )
        return
    parity = made[0].bundle.manifest.parity
    typer.echo(
        f"FP32 ONNX agrees with its source: max abs error {parity.max_abs_error:.1e} "
        f"({parity.max_rel_error:.1e} relative)"
    )
    tables.show(tables.reports([m.report for m in made], f"artifacts in {output}"))
    for manifest in (m.bundle.manifest for m in made):
        for fact in tables.facts(manifest):
            typer.echo(f"{manifest.name}: {fact}")
    _say_recommendations([m.report for m in made])
    for note in (note for m in made for note in m.notes()):
        typer.echo(f"note: {note}", err=True)
    typer.echo(tables.next_commands([m.bundle.path for m in made]))


@app.command()
def validate(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=EVALUATION_IMAGES)] = "",
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept calibration images.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure an artifact's accuracy and numerics against FP32."""
    from vitedge import proof, tables
    from vitedge.artifact import open_bundle
    from vitedge.progress import steps

    bundle = open_bundle(artifact)
    with steps() as progress:
        report = proof.validate_bundle(
            bundle, proof.evaluation_images(bundle, data), progress, allow_overlap=allow_overlap
        )
    if as_json:
        print_json(report)
        return
    tables.show(tables.reports([report], f"{artifact}"))
    accuracy = report["accuracy"]
    skipped = "".join(f"; skipped {n}: {why}" for why, n in accuracy["skipped"].items())
    typer.echo(f"{accuracy['n']} images of {accuracy['data']}{skipped}")


@app.command()
def bench(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Artifacts to time; default: all in artifacts/.", show_default=False),
    ] = None,
    against: Annotated[str, typer.Option(help="'fp32', or another artifact.")] = "fp32",
    duration: Annotated[float, typer.Option(help="Seconds for each artifact.")] = 3.0,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a run.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Time artifacts in turn with FP32, so that a speed-up is a ratio of one run."""
    from vitedge import proof, tables
    from vitedge.artifact import bundles_in, open_bundle
    from vitedge.progress import steps

    paths = artifacts or bundles_in(DEFAULT_OUTPUT)
    if not paths:
        raise InputError(f"no artifacts in {DEFAULT_OUTPUT}/", fix="make one with 'vitedge export'")
    bundles = [open_bundle(path) for path in paths]
    with steps() as progress:
        reports, _ = proof.bench_bundles(
            bundles,
            progress,
            against=against,
            duration_s=duration,
            batch=batch,
            threads=threads,
        )
    if as_json:
        print_json(reports[0] if len(reports) == 1 else {"reports": reports})
        return
    tables.show(tables.reports(reports, f"latency in turn, against {against}"))
    _say_recommendations(reports)
    if any(bundle.manifest.build is None for bundle in bundles):  # of a CPU
        say_int8_note()


for command in (inspect, build, *cli_catalogue.COMMANDS):
    app.command()(command)


def _precision(int8: bool, fp16: bool, fp32: bool) -> Precision:
    given = [name for name, on in (("int8", int8), ("fp16", fp16), ("fp32", fp32)) if on]
    if len(given) > 1:
        raise InputError(
            f"--{given[0]} and --{given[1]} exclude each other", fix="pass one precision"
        )
    return given[0] if given else "fp32"  # type: ignore[return-value]


def _task(text: str) -> Task | None:
    known = ("classification", "segmentation", "features")
    if text and text not in known:
        raise InputError(f"unknown --task '{text}'", fix=nearest(text, known))
    return text or None  # type: ignore[return-value]


def _batch(text: str) -> Batch | None:
    if not text or text == "dynamic":
        return text or None  # type: ignore[return-value]
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InputError(f"--batch '{text}' is no number of images", fix="pass 1, 2, … or dynamic")
    return int(text)


def _say_recommendations(reports: list[dict[str, Any]]) -> None:
    """Which precision to ship, a line for each target that was timed with FP32."""
    from vitedge import tables

    for line in tables.recommendations(reports):
        typer.echo(line)


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
        typer.echo(f"error: {error.what}", err=True)
        if error.fix:
            typer.echo(f"  fix: {error.fix}", err=True)
        sys.exit(error.exit_code)


def run() -> None:
    """The `vitedge` command."""
    with _errors_to_exit_codes():
        app()

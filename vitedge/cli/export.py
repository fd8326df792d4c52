"""The command that quantizes, exports and proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli import options
from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, show_export
from vitedge.core.errors import InputError
from vitedge.core.progress import steps

if TYPE_CHECKING:
    from vitedge.core.spec import Precision


def export(
    model: options.Model = "",
    target: Annotated[
        list[str] | None, typer.Option(help="A target, or a runtime for the target that fits here.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to INT8.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Half precision, guarded against overflow.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Single precision; the default.")] = False,
    calib_data: options.CalibData = "",
    calibration: options.Recipe = "default",
    num_samples: options.NumSamples = None,
    eval_data: options.EvalData = "",
    max_drop: Annotated[
        float | None, typer.Option(help="Keep layers in float until accuracy drops no more points.")
    ] = None,
    duration: options.Duration = 2.0,
    weights: options.Weights = None,
    arch: options.Arch = "",
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained weights: latency only.")
    ] = False,
    task: options.TaskName = "",
    preprocess: options.PreprocessFile = None,
    batch: options.BatchSize = "",
    opset: options.Opset = None,
    output: options.Output = options.DEFAULT_OUTPUT,
    force: options.Force = False,
    allow_overlap: options.AllowOverlap = False,
    as_json: Json = False,
) -> None:
    """Export a model to one or more targets, and prove each artifact against FP32."""
    from vitedge.export import job
    from vitedge.export.request import ExportRequest
    from vitedge.models.sources import ModelRequest

    if not target:
        raise InputError("no target given", fix="pass --target; see 'vitedge targets list'")
    request = ExportRequest(
        model=ModelRequest(model, arch, weights, preprocess, random_weights, options.task(task)),
        targets=tuple(target),
        precision=_precision(int8, fp16, fp32),
        calib_data=calib_data,
        calibration=calibration,
        num_samples=num_samples,
        eval_data=eval_data,
        max_drop_pp=max_drop,
        duration_s=duration,
        batch=options.batch(batch),
        opset=opset,
        output=output,
        force=force,
        allow_overlap=allow_overlap,
    )
    with steps(wording=command_line) as progress:
        artifacts = job.export(request, progress)
    show_export(artifacts, output, as_json=as_json)


def _precision(int8: bool, fp16: bool, fp32: bool) -> Precision:
    flags = [name for name, on in (("int8", int8), ("fp16", fp16), ("fp32", fp32)) if on]
    if len(flags) > 1:
        raise InputError(
            f"--{flags[0]} and --{flags[1]} exclude each other", fix="pass one precision"
        )
    return flags[0] if flags else "fp32"  # type: ignore[return-value]

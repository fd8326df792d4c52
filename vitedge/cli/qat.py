"""The command that trains a quantized model where PTQ is not enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitedge.cli import options
from vitedge.cli.flags import command_line
from vitedge.cli.output import Json, show_export
from vitedge.core.errors import InputError
from vitedge.core.progress import steps

if TYPE_CHECKING:
    from vitedge.core.spec import Training


def qat(
    model: options.Model = "",
    target: Annotated[
        str, typer.Option(help="A target, or a runtime for the target that fits here.")
    ] = "",
    train_data: Annotated[
        str, typer.Option(help="Training images, labelled or not: folder, .npz or 'digits'.")
    ] = "",
    training: Annotated[
        Path | None, typer.Option(help="Training settings, a .toml.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training images.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images of one step, over all processes.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of the weights, at its highest.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of order and augmentation.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's event files.", show_default=False)
    ] = None,
    calib_data: options.CalibData = "",
    calibration: options.Recipe = "default",
    num_samples: options.NumSamples = None,
    eval_data: options.EvalData = "",
    duration: options.Duration = 2.0,
    weights: options.Weights = None,
    arch: options.Arch = "",
    task: options.TaskName = "",
    preprocess: options.PreprocessFile = None,
    batch: options.BatchSize = "",
    opset: options.Opset = None,
    output: options.Output = options.DEFAULT_OUTPUT,
    force: options.Force = False,
    allow_overlap: options.AllowOverlap = False,
    as_json: Json = False,
) -> None:
    """Train the quantized model against the FP32 one, then export it as `export --int8` does.

    Under `accelerate launch` or `torchrun`, with `-m vitedge qat …`, on several devices.
    """
    from vitedge.export import qat as job
    from vitedge.export.request import ExportRequest
    from vitedge.models.sources import ModelRequest

    if not target:
        raise InputError("no target given", fix="pass --target; see 'vitedge targets list'")
    overrides = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    request = job.QatRequest(
        export=ExportRequest(
            model=ModelRequest(model, arch, weights, preprocess, False, options.task(task)),
            targets=(target,),
            precision="int8",
            calib_data=calib_data or train_data,
            calibration=calibration,
            num_samples=num_samples,
            eval_data=eval_data,
            duration_s=duration,
            batch=options.batch(batch),
            opset=opset,
            output=output,
            force=force,
            allow_overlap=allow_overlap,
        ),
        train_data=train_data,
        training=_settings(
            training, {key: value for key, value in overrides.items() if value is not None}
        ),
        resume=resume,
        tensorboard=tensorboard,
    )
    with steps(wording=command_line) as progress:
        artifacts = job.run(request, progress)
    if artifacts:
        show_export(artifacts, output, as_json=as_json)


def _settings(path: Path | None, overrides: dict[str, object]) -> Training:
    """The file's settings, or the defaults, with what was given on the command line."""
    import msgspec

    from vitedge.core.spec import Training, load_toml

    settings = load_toml(path, Training) if path else Training()
    changed = msgspec.structs.asdict(settings) | overrides
    try:
        return msgspec.convert(changed, Training)
    except msgspec.ValidationError as error:
        wrong, _, key = str(error).partition(" - at `$.")
        raise InputError(f"--{key.rstrip('`').replace('_', '-')}: {wrong}") from error

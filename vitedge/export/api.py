"""The API's part on making artifacts: export, train, build, and all of it in one demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitedge.core.api import ARTIFACTS, AnyBundle, AnyPath, Names, several, verified
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps, steps
from vitedge.core.spec import Count, Positive
from vitedge.models.api import AnyModel, Classes, request

if TYPE_CHECKING:
    from vitedge.core.spec import Batch, Precision, Preprocess, Task, Training
    from vitedge.data.open import Data
    from vitedge.export.demo import Demo
    from vitedge.export.request import ExportRequest
    from vitedge.export.result import ExportResult, Exports
    from vitedge.export.training_set import QatRequest
    from vitedge.measure.open_bundle import OpenBundle


def export(
    model: AnyModel = "",
    *,
    targets: Names = (),
    precision: Precision = "fp32",
    only: bool = False,
    calib_data: Data = "",
    calibration: str = "default",
    num_samples: Positive | None = None,
    eval_data: Data = "",
    max_drop_pp: float | None = None,
    min_sqnr_db: float | None = None,
    min_token_sqnr_db: float | None = None,
    duration_s: float = 2.0,
    weights: AnyPath | None = None,
    arch: str = "",
    random_weights: bool = False,
    task: Task | None = None,
    preprocess: AnyPath | Preprocess | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    classes: Classes | None = None,
    prompt: str = "",
    model_output: Names = (),
    batch: Batch | None = None,
    opset: int | None = None,
    output: AnyPath = ARTIFACTS,
    force: bool = False,
    allow_overlap: bool = False,
    keep_going: bool = False,
    progress: Steps | None = None,
) -> Exports:
    """Export a model to one or more targets, and prove each artifact against FP32.

    Any other precision comes with its FP32 artifact. Nothing appears in `output` before all
    of it is built and checked. What one target cannot do costs no other artifact: the rest is
    written, and then the first failure is raised.

    Args:
        model: Empty: the embedded reference. Else a name of 'vitedge models list', timm:NAME,
            hf:ID-or-directory, hf:USER/REPO/FILE.onnx, torchvision:NAME, FILE.onnx, or
            FILE.safetensors / .pt / .npz with `arch`.
        targets: A target, or a runtime for the target that fits here.
        precision: 'fp32', 'fp16', guarded against overflow, 'bf16', 'fp8' or 'int8'. With 'fp8' and
            'int8' comes every float that the target computes in, to compare with.
        only: FP32 and that precision alone.
        calib_data: Calibration images: folder, .npz, 'digits', 'shapes' or 'random'.
        calibration: Calibration recipe, or a .toml.
        num_samples: Calibration images; default: the recipe's.
        eval_data: Labelled images: folder, .npz, 'digits' or 'shapes'.
        max_drop_pp: Keep layers in float until accuracy drops no more points.
        min_sqnr_db: Keep layers in float until every output keeps so many dB of FP32's (SQNR);
            needs no labels.
        min_token_sqnr_db: Likewise, in the worst token or pixel.
        duration_s: Seconds of timing for each precision; 0: none, and no recommendation.
        weights: Weights of a named model.
        arch: Architecture of a weights file.
        random_weights: Untrained weights: latency only.
        task: classification, segmentation, detection, dense or features; default: the source's.
        preprocess: Preprocessing: a .toml or .json, or a preprocessor_config.json.
        height: Pixels, where an ONNX file leaves them open.
        width: Likewise.
        classes: A text file with one class a line: a model of images and texts (CLIP, SigLIP)
            becomes a classifier of them. Without, its image encoder is taken.
        prompt: The text of one class, {} in its place; default: 'a photo of a {}'.
        model_output: Outputs to keep, the main one first: accuracy and limits are about it;
            repeatable. Default: all in float32.
        batch: Images a run, or 'dynamic'.
        opset: ONNX opset; default: the target's.
        output: Folder that holds the artifacts.
        force: Replace existing artifacts.
        allow_overlap: Evaluate on images that were used, too.
        keep_going: Succeed where some artifacts were written, whatever others could not.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        A list of every artifact that was written, FP32 first, with its report; its `failures` are
        those that were not, with the error of each.

    Raises, with what was written all the same as the error's `exports`:
        InputError: the model, the data or the parameters are of no use, and how to mend it.
        UnavailableError: a package or a runtime is missing.
        LimitError: `max_drop_pp`, `min_sqnr_db` or `min_token_sqnr_db` cannot be met.
    """
    parameters = {name: value for name, value in locals().items() if name != "progress"}
    from vitedge.export import job

    with steps(progress) as shown:
        return job.export(to_export(**parameters), shown)


def to_export(
    *,
    targets: Names,
    calib_data: Data,
    eval_data: Data,
    batch: Batch | None,
    output: AnyPath,
    **further: Any,
) -> ExportRequest:
    """The parameters of `export` as one. Raises InputError."""
    from vitedge.data.open import source_of
    from vitedge.export.request import ExportRequest

    if not targets:
        raise InputError("no target given", fix="pass `targets`; see 'vitedge targets list'")
    of_model = (
        *("model", "weights", "arch", "random_weights"),
        *("task", "preprocess", "height", "width", "classes", "prompt", "model_output"),
    )
    return ExportRequest(
        model=request(**{name: further.pop(name) for name in of_model if name in further}),
        targets=tuple(several(targets)),
        calib_data=source_of(calib_data),
        eval_data=source_of(eval_data),
        batch=_batch(batch),
        output=Path(output),
        **further,
    )


def _batch(batch: Batch | str | None) -> Batch | None:
    """Raises InputError where it is no number of images."""
    text = str(batch or "")
    if not text or text == "dynamic":
        return text or None  # type: ignore[return-value]
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InputError(f"`batch` '{text}' is no number of images", fix="pass 1, 2, … or dynamic")
    return int(text)


def qat(
    model: AnyModel = "",
    *,
    target: str = "",
    train_data: str = "",
    training: AnyPath | Training | None = None,
    epochs: Positive | None = None,
    batch_size: Positive | None = None,
    learning_rate: float | None = None,
    seed: Count | None = None,
    resume: bool = False,
    tensorboard: AnyPath | None = None,
    min_sqnr_db: float | None = None,
    min_token_sqnr_db: float | None = None,
    calib_data: str = "",
    calibration: str = "default",
    num_samples: Positive | None = None,
    eval_data: str = "",
    duration_s: float = 2.0,
    weights: AnyPath | None = None,
    arch: str = "",
    task: Task | None = None,
    preprocess: AnyPath | Preprocess | None = None,
    height: Positive | None = None,
    width: Positive | None = None,
    classes: Classes | None = None,
    prompt: str = "",
    model_output: Names = (),
    batch: Batch | None = None,
    opset: int | None = None,
    output: AnyPath = ARTIFACTS,
    force: bool = False,
    allow_overlap: bool = False,
    progress: Steps | None = None,
) -> list[ExportResult]:
    """Train the quantized model against the FP32 one, then export it as `export` does in INT8.

    Under `accelerate launch` or `torchrun`, with `-m vitedge qat …`, on several devices.

    Args:
        target: A target, or a runtime for the target that fits here.
        train_data: Training images, labelled or not: folder, .npz or 'digits'.
        training: Training settings, a .toml.
        epochs: Passes over the training images.
        batch_size: Images of one step, over all processes.
        learning_rate: Of the weights, at its highest.
        seed: Of order and augmentation.
        resume: Go on from the last checkpoint.
        tensorboard: Folder for TensorBoard's event files.
        min_sqnr_db: End training once every output keeps so many dB of FP32's (SQNR) on training
            images that were held out; exit 1 where that never happens.
        min_token_sqnr_db: Likewise, in the worst token or pixel.

    The others, what is returned and what is raised are as of `export`; a process that only
    trains along returns nothing.
    """
    parameters = {name: value for name, value in locals().items() if name != "progress"}
    from vitedge.export import qat as job

    with steps(progress) as shown:
        return job.run(to_qat(**parameters), shown)


def to_qat(
    *,
    target: str,
    train_data: str,
    training: AnyPath | Training | None,
    resume: bool,
    tensorboard: AnyPath | None,
    min_sqnr_db: float | None,
    min_token_sqnr_db: float | None,
    calib_data: str,
    **further: Any,
) -> QatRequest:
    """The parameters of `qat` as one. Raises InputError."""
    from vitedge.core.manifest import Bounds
    from vitedge.export import qat as job
    from vitedge.export.training_set import QatRequest

    changes = {name: further.pop(name) for name in job.SETTINGS}
    return QatRequest(
        export=to_export(
            targets=target, precision="int8", calib_data=calib_data or train_data, **further
        ),
        train_data=train_data,
        training=job.settings(training, changes),
        resume=resume,
        tensorboard=None if tensorboard is None else Path(tensorboard),
        bounds=Bounds(min_sqnr_db=min_sqnr_db, min_token_sqnr_db=min_token_sqnr_db),
    )


def build(artifact: AnyBundle, *, force: bool = False, progress: Steps | None = None) -> OpenBundle:
    """Compile the engine of an artifact on this machine: TensorRT's are built on the device.

    Args:
        artifact: An artifact's folder.
        force: Build an engine that is there.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Raises:
        InputError: no sound artifact, nothing to build, or it is built already.
        UnavailableError: this machine lacks what it takes.
    """
    from vitedge.export import build as job

    with steps(progress) as shown:
        return job.build(verified(artifact), shown, force=force)


def demo(
    output: AnyPath = ARTIFACTS, *, model: str = "digits", progress: Steps | None = None
) -> Demo:
    """Run the whole job on an embedded model and the images it was trained for.

    Args:
        output: Folder that holds the artifacts.
        model: digits, shapes, shapes-setr or shapes-detr.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Raises:
        InputError: `model` is another.
        UnavailableError: what it takes is not installed.
    """
    from vitedge.export import demo as job

    with steps(progress) as shown:
        return job.run(model, Path(output), shown)

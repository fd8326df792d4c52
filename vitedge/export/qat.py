"""Quantization-aware training: PTQ's own quantizers, trained on, and exported as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.api import AnyPath
from vitedge.core.bounds import asked, check_tokens
from vitedge.core.bounds import check as check_bounds
from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError, VitedgeError, missing
from vitedge.core.numerics import fill_batch
from vitedge.core.progress import SILENT, Steps
from vitedge.core.spec import Floats, Training
from vitedge.core.toml import load_toml
from vitedge.export.job import export_model, load_model
from vitedge.export.request import images_of, plan_export
from vitedge.export.result import ExportResult
from vitedge.export.training_set import QatRequest, TrainingSet, checked
from vitedge.models.sources import ModelIdentity
from vitedge.quant.int8 import TrainedGraph

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitedge.graph.run import Fp32Graph
    from vitedge.quant.parameters import Calibrated
    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.checkpoint import LogListener
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import TrainingRun

SETTINGS = ("epochs", "batch_size", "learning_rate", "seed")
"""Of training, those that are parameters of `qat`, too."""
_CURVE_POINTS = 200


def settings(training: AnyPath | Training | None, given: Mapping[str, object]) -> Training:
    """Those of `training`, a file's or the defaults, with what is `given`. Raises InputError."""
    changes = {name: value for name, value in given.items() if value is not None}
    if not isinstance(training, Training):
        training = load_toml(Path(training), Training) if training else Training()
    try:
        return msgspec.convert(msgspec.structs.asdict(training) | changes, Training)
    except msgspec.ValidationError as error:
        wrong, _, key = str(error).partition(" - at `$.")
        raise InputError(f"`{key.rstrip('`')}`: {wrong}") from error


def run(request: QatRequest, steps: Steps) -> list[ExportResult]:
    """Quantize a model, train it on, and export it; nothing in a process that only trains along.

    Raises what `job.export` does, InputError for training data, checkpoints and losses that are
    of no use, and LimitError where training never meets its bounds.
    """
    check_bounds(request.bounds)
    if not request.train_data and not request.export.own_data:
        raise InputError("no images to train on", fix="pass `train_data` with a folder or an .npz")
    try:
        from vitedge.quant.qat import team, tensorboard
        from vitedge.quant.qat.checkpoint import no_listener
    except ImportError as error:
        raise missing(error.name or "accelerate", "qat") from error
    if request.tensorboard:
        tensorboard.check()
    accelerator = team.gather()
    if not accelerator.is_main_process:
        try:
            _train(team.share(accelerator, None), accelerator, SILENT, no_listener)
        except VitedgeError as error:  # the first process says what it is
            raise SystemExit(error.exit_code) from error
        return []
    training: _Training | None = None
    try:
        plan = plan_export(request.export)
        if plan.recipe and plan.recipe.engine != "vitedge":
            raise InputError(
                f"calibration recipe '{plan.recipe.name}' has `engine` {plan.recipe.engine}, and "
                "training goes on from our own PTQ",
                fix="pass `calibration='default'`",
            )
        model = load_model(plan, steps)
        images = checked(request, plan, model.identity, accelerator.num_processes, steps)
        training = _Training(request, images, model.identity, accelerator, steps)
        results = export_model(plan, model, steps, training)
    except VitedgeError as error:
        if training is None or training.others_wait:
            team.share(accelerator, error)
        raise
    shutil.rmtree(images.folder, ignore_errors=True)  # the artifact is there
    return results


@dataclass
class _Training:
    """The part of an export that trains: `vitedge.quant.int8.Train`."""

    request: QatRequest
    images: TrainingSet
    model: ModelIdentity
    accelerator: Accelerator
    steps: Steps
    others_wait: bool = True
    """The other processes, to be told what to train."""

    def check(self, exported: Fp32Graph, golden: Golden) -> None:
        from vitedge.quant.qat import trainable

        ranks = (golden.outputs.ndim, *(output.ndim for output in golden.further.values()))
        check_tokens(self.request.bounds, self.model.name, ((rank, "") for rank in ranks))
        trainable.check(exported, golden, self.request.training)

    def __call__(self, calibrated: Calibrated, golden: Golden) -> TrainedGraph:
        from vitedge.quant.qat import team, tensorboard

        request = self.request
        start = _start(request, self.images, self.model, calibrated)
        self.others_wait = False
        team.share(self.accelerator, start)
        with tensorboard.watching(request.tensorboard) as listener:
            student, run = _train(start, self.accelerator, self.steps, listener)
        record = _record(request, self.images, run, self.accelerator.num_processes)
        return TrainedGraph(_learned(calibrated, student), record, _outputs(student, golden.images))


@dataclass(frozen=True)
class _Start:
    """All that a process needs to train along."""

    path: Path
    """PTQ's FP32 graph, equalized."""
    placed: Placement
    scales: dict[str, NDArray[np.float32]]
    """PTQ's, of each weight."""
    floats: Floats
    model: ModelIdentity
    training_set: TrainingSet
    settings: Training
    bounds: manifest.Bounds


def _start(
    request: QatRequest, training_set: TrainingSet, model: ModelIdentity, calibrated: Calibrated
) -> _Start:
    """Where training starts from what PTQ gave; with `force`, another run is only now given up."""
    from vitedge.quant.qdq import quantizers

    placed, scales = quantizers(calibrated)
    if not request.resume:
        shutil.rmtree(training_set.folder, ignore_errors=True)
    training_set.folder.mkdir(exist_ok=True)
    return _Start(
        path=calibrated.path.resolve(),
        placed=placed,
        scales=scales,
        floats=calibrated.target.floats,
        model=model,
        training_set=training_set,
        settings=request.training,
        bounds=request.bounds,
    )


def _learned(calibrated: Calibrated, student: Network) -> Calibrated:
    """`calibrated` with the weights and scales of `student`."""
    from vitedge.graph.external import with_constants
    from vitedge.quant.parameters import Learned

    path = calibrated.path.with_name("trained.onnx")
    with_constants(calibrated.path, student.trained_weights(), path)
    learned = Learned(student.activation_scales(), student.weight_scales())
    return replace(calibrated, path=path, learned=learned)


def _record(
    request: QatRequest, training_set: TrainingSet, training_run: TrainingRun, processes: int
) -> manifest.Trained:
    """The manifest's record of a run."""
    looks = [line for line in training_run.log if "held_out" in line]
    return manifest.Trained(
        settings=request.training,
        source=training_set.source,
        images=len(training_set.training),
        held_out=len(training_set.held_out),
        digest=training_set.digest,
        skipped=training_set.skipped,
        missing_classes=tuple(training_set.missing_classes),
        processes=processes,
        steps=training_run.steps,
        best_step=training_run.best_step,
        bounds=request.bounds if asked(request.bounds) else None,
        looks=tuple(manifest.HeldOut(step=look["step"], **look["held_out"]) for look in looks),
        curve=_curve([line for line in training_run.log if "loss" in line]),
    )


def _train(
    start: _Start, accelerator: Accelerator, steps: Steps, listener: LogListener
) -> tuple[Network, TrainingRun]:
    import onnx
    import torch

    from vitedge.measure.accuracy.output_error import OutputErrors
    from vitedge.quant.placement import Placement
    from vitedge.quant.qat.job import TrainingJob
    from vitedge.quant.qat.network import Network
    from vitedge.quant.qat.trainer import train

    settings, training_set = start.settings, start.training_set
    graph = onnx.load(start.path, load_external_data=False).graph
    names = [output.name for output in graph.output]
    student = Network(
        start.path,
        start.placed,
        {name: torch.from_numpy(scales) for name, scales in start.scales.items()},
        start.floats,
        learned=settings.scales == "learned",
        checkpointing=settings.gradient_checkpointing,
    )
    teacher = Network(start.path, Placement(), {}, start.floats, learned=False)
    job = TrainingJob(
        student=student,
        teacher=teacher,
        images=images_of(start.model, training_set.source, "calibration"),
        training=training_set.training,
        held_out=training_set.held_out,
        task=start.model.task,
        settings=settings,
        folder=training_set.folder,
        fingerprint=training_set.fingerprint,
        errors=partial(OutputErrors, names, start.model.task),
        bounds=start.bounds,
    )
    return student, train(job, accelerator, steps, listener)


def _outputs(student: Network, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What was trained, for the golden images."""
    import torch

    filled = torch.from_numpy(fill_batch(images, student.batch))
    student.cpu()
    with torch.no_grad():
        logits = student(filled).logits[: len(images)]
    return np.asarray(logits.double().numpy())


def _curve(lines: Sequence[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    """(step, loss), means over equal stretches where there are many steps."""
    stretch = -(-len(lines) // _CURVE_POINTS)
    parts = [lines[i : i + stretch] for i in range(0, len(lines), max(1, stretch))]
    return tuple(
        (part[-1]["step"], float(np.mean([line["loss"] for line in part]))) for part in parts
    )

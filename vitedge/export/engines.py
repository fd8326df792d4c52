"""Who makes the INT8 of an export, as its recipe says: our PTQ and its accuracy control, or NNCF.

Both give QDQ files and a record of every layer; all that follows is one path for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.bounds import asked
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError, LimitError
from vitedge.core.manifest import Bounds
from vitedge.core.spec import Target
from vitedge.core.step_cache import Slot
from vitedge.export.accuracy_control import Probe, control_accuracy
from vitedge.export.request import Job
from vitedge.export.stage import Source, stage
from vitedge.measure.accuracy import metrics
from vitedge.measure.accuracy.tally import CONFIDENCE
from vitedge.quant.int8 import Int8, Quantizer, Train, TrainedGraph

if TYPE_CHECKING:
    from vitedge.quant.nncf import NncfQuantizer

Controlled = tuple[Probe, manifest.Control | None, list[str]]
"""INT8 within a limit, our search's record of what that took, and notes for the user."""


class GraphQuantizer(Protocol):
    """Writes one export in INT8 for one target."""

    @property
    def trained(self) -> TrainedGraph | None:
        """What training made of it; None where there was none."""
        ...

    def write(self, folder: Path) -> Int8:
        """Write `folder/model.onnx`, all of it that is to be INT8."""
        ...

    def examine(self, int8: Int8) -> manifest.QuantizationRecord:
        """The record of `int8`, with what each of its layers loses."""
        ...


@dataclass(frozen=True)
class Engine:
    """A quantizer, and how it keeps to a limit on accuracy."""

    quantizer: GraphQuantizer
    control: Callable[[Probe, Bounds], Controlled]
    """From all in INT8, which loses more, to what loses no more than given. Raises LimitError where
    that cannot be."""


def engine_of(
    job: Job, target: Target, source: Source, fp32: Bundle, train: Train | None
) -> Engine:
    """The engine that the recipe of `job` names; `train` is for ours.

    Raises InputError where NNCF cannot keep to `max_drop_pp`.
    """
    assert job.calibration is not None
    exported, images, steps = source.exported, job.calibration, job.steps
    if images.recipe.engine == "nncf":
        from vitedge.quant.nncf import NncfQuantizer

        if job.plan.request.max_drop_pp is not None and job.model.task != "classification":
            raise InputError(
                "`max_drop_pp` with NNCF is for classifiers: its accuracy control judges images "
                f"one by one, and {job.model.name} is for {job.model.task}",
                fix="pass `calibration='default'`, or drop `max_drop_pp`",
            )
        nncf = NncfQuantizer(exported, target, images, steps)
        return Engine(nncf, partial(_control_by_nncf, job, target, source, fp32, nncf))
    if train:
        train.check(exported, source.golden)
    trained = (lambda ptq: train(ptq, source.golden)) if train else None
    spare = not asked(job.plan.request.bounds)
    kept = None
    if job.cache is not None and job.keys is not None:
        kept = Slot(job.cache, "statistics", job.keys.statistics(target))
    ours = Quantizer(exported, target, images, steps, trained, spare=spare, statistics=kept)
    return Engine(ours, partial(control_accuracy, job, target, source, fp32, ours))


def _control_by_nncf(
    job: Job,
    target: Target,
    source: Source,
    fp32: Bundle,
    quantizer: NncfQuantizer,
    full: Probe,
    bounds: Bounds,
) -> Controlled:
    """What NNCF's accuracy control makes of it, measured as everything is: on its runtime."""
    limit_pp = bounds.max_drop_pp
    if limit_pp is None or bounds != Bounds(max_drop_pp=limit_pp):
        raise InputError(
            "NNCF's accuracy control knows no bound in dB, and its INT8 keeps less than asked",
            fix="pass `calibration='default'`, or drop `min_sqnr_db` and `min_token_sqnr_db`",
        )
    assert job.evaluation is not None
    job.steps.say("NNCF's accuracy control")
    folder = job.work / f"int8-{target.name}.controlled"
    int8 = quantizer.control(folder, full.int8, job.evaluation, _top1, limit_pp)
    controlled = Probe(stage(job, target, source, int8, fp32, ".controlled"), int8)
    if controlled.result.drop_pp > limit_pp:
        name = controlled.result.bundle.manifest.name
        raise LimitError(
            f"{name} loses {full.result.drop_pp:.2g} points, more than "
            f"`max_drop_pp={limit_pp:g}`, and {controlled.result.drop_pp:.2g} with the layers in "
            "float that NNCF's accuracy control takes",
            fix="allow more, pass `calibration='default'`, or ship `precision='fp32'`",
        )
    before, after = (
        sum(layer.quantized for layer in probe.int8.record.layers) for probe in (full, controlled)
    )
    note = (
        f"NNCF's accuracy control keeps {before - after} of {before} layers in float: with them in "
        f"INT8 it loses {full.result.drop_pp:.2g} points, so {controlled.result.drop_pp:.2g}"
    )
    return controlled, None, [note]


def _top1(labels: NDArray[np.int64], logits: NDArray[np.float32]) -> float:
    """As `validate` measures it."""
    score = metrics.score("classification")
    score.add(labels, logits, None)
    return score.result(CONFIDENCE).value.artifact

"""A recipe made definite for one model: what it leaves open is decided by the output it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from vitedge.core.spec import Calibration, Equalize, Quantization
from vitedge.graph.io import write
from vitedge.graph.run import Progress, Runner
from vitedge.quant.observe import Images, Observed, observe
from vitedge.quant.placement import activation_scale
from vitedge.quant.qdq import quantize
from vitedge.quant.ranges import ESTIMATORS
from vitedge.quant.settle import Calibrated, Settings, settle

STRENGTHS: tuple[Equalize, ...] = ("off", 0.25, 0.5, 0.75)
"""What `equalize = "auto"` tries."""


@dataclass(frozen=True)
class Tried:
    """One setting, and the SQNR of its output on calibration images, dB."""

    settings: Settings
    sqnr_db: float


def calibrate(
    fp32: Path,
    batches: Iterator[Images],
    recipe: Calibration,
    target: Quantization,
    progress: Progress,
) -> tuple[Calibrated, list[Tried]]:
    """Measure what quantizing the ONNX file `fp32` (uint8 NHWC input) takes.

    `batches` are calibration images (B, H, W, 3) of the graph's own batch size. Returns also what
    was tried where the recipe says `auto`, best first. Raises InputError when an activation is NaN
    or infinite, or nothing can be quantized.
    """
    observed = observe(fp32, batches, recipe, target, progress)
    ways = STRENGTHS if recipe.equalize == "auto" else (recipe.equalize,)
    estimators = tuple(ESTIMATORS) if recipe.activations == "auto" else (recipe.activations,)
    first = Settings(ways[0], estimators[0], recipe.weights, recipe.weight_bits)
    if len(ways) == len(estimators) == 1:
        return settle(observed, first, target), []
    found: list[tuple[float, Calibrated]] = []
    total = len(ways) * len(estimators)
    for way in ways:
        settled = settle(observed, replace(first, equalize=way), target)
        model, _ = quantize(settled, lambda *step: None, {})
        for estimator in estimators:
            tried = replace(settled, settings=replace(settled.settings, activations=estimator))
            found.append((_sqnr_db(observed, tried, model), tried))
            progress("trying recipes", len(found), total)
    found.sort(key=lambda one: -one[0])
    return found[0][1], [Tried(calibrated.settings, db) for db, calibrated in found]


def _sqnr_db(observed: Observed, calibrated: Calibrated, model: ModelProto) -> float:
    """How well `model`, with the ranges of `calibrated`, follows FP32 on the images kept."""
    scales = {f"{name}.scale": name for name in calibrated.ranges}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            scale = activation_scale(calibrated, scales[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    path = observed.fp32.with_name("tried.onnx")
    write(model, path)
    run = Runner(path)
    signal = noise = 0.0
    for images, wanted in zip(observed.images, observed.outputs, strict=True):
        signal += float(np.square(wanted, dtype=np.float64).sum())
        noise += float(np.square(run(images)[0] - wanted, dtype=np.float64).sum())
    path.unlink()
    return 10 * float(np.log10(max(signal, 1e-300) / max(noise, 1e-300)))

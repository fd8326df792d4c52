"""A recipe made definite for one model: what it leaves open is decided by the output it gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import ModelProto, numpy_helper

from vitedge.core.errors import InputError
from vitedge.core.manifest import Tried
from vitedge.core.numerics import sqnr_db
from vitedge.core.spec import Calibration, Equalize, Quantization
from vitedge.graph.io import write
from vitedge.graph.run import Progress, Runner
from vitedge.quant.observe import Images, Observed, observe
from vitedge.quant.parameters import Calibrated, QuantizerSettings, fit
from vitedge.quant.placement import activation_scale
from vitedge.quant.policy import in_float
from vitedge.quant.qdq import quantize, rescale_biases
from vitedge.quant.ranges import ESTIMATORS

STRENGTHS: tuple[Equalize, ...] = ("off", 0.25, 0.5, 0.75)
"""What `equalize = "auto"` tries."""
SPARED_DB = 25.0
"""Of the model's output, what products that put out INT8 must leave."""
STORED_DB = 20.0
"""What weights alone must leave: below, choices change sides."""
GAIN_DB = 1.0
"""What float weights must give to be worth their bytes."""


def calibrate(
    fp32: Path,
    batches: Iterator[Images],
    recipe: Calibration,
    target: Quantization,
    progress: Progress,
) -> tuple[Calibrated, list[Tried]]:
    """Measure what quantizing the ONNX file `fp32` (uint8 NHWC input) takes.

    Convolutions whose INT8 has its output in INT8 get it where that leaves the model's enough.
    `batches` are calibration images (B, H, W, 3) of the graph's own batch size. Returns also what
    was tried where the recipe says `auto`, best first. Raises InputError when an activation is NaN
    or infinite, or nothing can be quantized.
    """
    observed = observe(fp32, batches, recipe, target, progress)
    strengths = STRENGTHS if recipe.equalize == "auto" else (recipe.equalize,)
    estimators = tuple(ESTIMATORS) if recipe.activations == "auto" else (recipe.activations,)
    first = QuantizerSettings(strengths[0], estimators[0], recipe.weights, recipe.weight_bits)
    if len(strengths) == len(estimators) == 1:
        return _spared(observed, fit(observed, first, target)), []
    candidates: list[tuple[Tried, Calibrated]] = []
    total = len(strengths) * len(estimators)
    for strength in strengths:
        equalized = fit(observed, replace(first, equalize=strength), target)
        model, _ = quantize(equalized, lambda *step: None, {})
        for estimator in estimators:
            settings = replace(equalized.settings, activations=estimator)
            candidate = replace(equalized, settings=settings)
            quality_db = _quality_db(observed, candidate, model)
            tried = Tried(equalize=strength, activations=estimator, sqnr_db=quality_db)
            candidates.append((tried, candidate))
            progress("trying recipes", len(candidates), total)
    candidates.sort(key=lambda candidate: -candidate[0].sqnr_db)
    return _spared(observed, candidates[0][1]), [tried for tried, _ in candidates]


def _spared(observed: Observed, calibrated: Calibrated) -> Calibrated:
    """`calibrated`, without what costs the model's output too much.

    That are products that put out INT8, which then have their weights alone in INT8, and, where
    that costs, too, such weights. Raises InputError where nothing is left.
    """
    target, layers = calibrated.target, calibrated.layers
    if any(layer.quantized and layer.op in target.quantized_outputs for layer in layers):
        quality_db = _quality_of(observed, calibrated)
        if quality_db >= SPARED_DB:
            return calibrated
        why = f"INT8 products leave {_too_little(quality_db, SPARED_DB)}"
        revised = (
            in_float(layer, why, stored=layer.op in target.stored)
            if layer.quantized and layer.op in target.quantized_outputs
            else layer
            for layer in layers
        )
        calibrated = replace(calibrated, layers=tuple(revised))
    if not any(layer.stored for layer in calibrated.layers):
        return calibrated
    quality_db = _quality_of(observed, calibrated)
    if quality_db >= STORED_DB:
        return calibrated
    why = f"weights in INT8 leave {_too_little(quality_db, STORED_DB)}"
    revised = (in_float(layer, why) if layer.stored else layer for layer in calibrated.layers)
    without = replace(calibrated, layers=tuple(revised))
    if not any(layer.quantized for layer in without.layers):
        raise InputError(
            f"nothing to quantize: {why}",
            fix="try `calibration='auto'`, which rescales channels first, or ship "
            "`precision='fp32'` there",
        )
    return without if _quality_of(observed, without) > quality_db + GAIN_DB else calibrated


def _too_little(quality_db: float, least_db: float) -> str:
    return f"the model's output {quality_db:.1f} dB on calibration images, less than {least_db:g}"


def _quality_of(observed: Observed, calibrated: Calibrated) -> float:
    return _quality_db(observed, calibrated, quantize(calibrated, lambda *step: None, {})[0])


def _quality_db(observed: Observed, calibrated: Calibrated, model: ModelProto) -> float:
    """SQNR of `model`, with the ranges of `calibrated`, on the images kept; -inf if not finite."""
    scales = {f"{name}.scale": name for name in calibrated.ranges}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            scale = activation_scale(calibrated, scales[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    rescale_biases(model.graph)
    path = observed.fp32.with_name("tried.onnx")
    write(model, path)
    run = Runner(path)
    signal = noise = 0.0
    for images, fp32 in zip(observed.images, observed.outputs, strict=True):
        signal += float(np.square(fp32, dtype=np.float64).sum())
        noise += float(np.square(run(images)[0] - fp32, dtype=np.float64).sum())
    for file in path.parent.glob(f"{path.name}*"):  # its data, where it is large
        file.unlink()
    quality_db = sqnr_db(max(signal, 1e-300), max(noise, 1e-300))
    return -math.inf if quality_db is None else quality_db

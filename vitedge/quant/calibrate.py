"""A recipe made definite for one model: what it leaves open is decided by the output it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vitedge.core.manifest import Tried
from vitedge.core.spec import Calibration, Detection, Equalize, Quantization
from vitedge.graph.run import Progress
from vitedge.quant.observe import Images, Keep, observe
from vitedge.quant.parameters import Calibrated, QuantizerSettings, fit
from vitedge.quant.qdq import quantize
from vitedge.quant.quality import quality_db
from vitedge.quant.ranges import ESTIMATORS

STRENGTHS: tuple[Equalize, ...] = ("off", 0.25, 0.5, 0.75)
"""What `equalize = "auto"` tries."""


def calibrate(
    fp32: Path,
    batches: Iterator[Images],
    recipe: Calibration,
    target: Quantization,
    progress: Progress,
    orders: Sequence[str] = (),
    detection: Detection | None = None,
    keep: Keep = lambda make: make(),
) -> tuple[Calibrated, list[Tried]]:
    """Measure what quantizing the ONNX file `fp32` (uint8 NHWC input) takes.

    `batches` are calibration images (B, H, W, 3) of the graph's own batch size. Returns also what
    was tried where the recipe says `auto`, best first; outputs whose `orders` scores choose, as
    the manifest says, are matched with FP32's, and `detection` says how those of a detector are
    read; `keep` is as of `observe`. Raises InputError when an activation is NaN
    or infinite, or nothing can be quantized.
    """
    assert recipe.activations != "nncf" and recipe.weights != "nncf" and recipe.equalize != "nncf"
    observed = observe(fp32, batches, recipe, target, progress, orders, detection, keep)
    strengths = STRENGTHS if recipe.equalize == "auto" else (recipe.equalize,)
    estimators = tuple(ESTIMATORS) if recipe.activations == "auto" else (recipe.activations,)
    first = QuantizerSettings(strengths[0], estimators[0], recipe.weights, recipe.weight_bits)
    if len(strengths) == len(estimators) == 1:
        return fit(observed, first, target), []
    candidates: list[tuple[Tried, Calibrated]] = []
    total = len(strengths) * len(estimators)
    for strength in strengths:
        equalized = fit(observed, replace(first, equalize=strength), target)
        model, _ = quantize(equalized, lambda *step: None, {})
        for estimator in estimators:
            settings = replace(equalized.settings, activations=estimator)
            candidate = replace(equalized, settings=settings)
            level_db = quality_db(candidate, model)
            tried = Tried(equalize=strength, activations=estimator, sqnr_db=level_db)
            candidates.append((tried, candidate))
            progress("trying recipes", len(candidates), total)
    candidates.sort(key=lambda candidate: -candidate[0].sqnr_db)
    return candidates[0][1], [tried for tried, _ in candidates]

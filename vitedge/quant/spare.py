"""What INT8 costs a model's output too much stays in float, by what is left on calibration images.

A user who has labels bounds what is lost by accuracy control instead: this needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vitedge.core import manifest
from vitedge.core.numerics import noise_db
from vitedge.graph.run import Progress
from vitedge.quant.parameters import Calibrated
from vitedge.quant.policy import in_float
from vitedge.quant.qdq import quantize
from vitedge.quant.quality import LEAST_DB, quality_db
from vitedge.quant.sensitivity import harm

OUTPUTS_DB = 25.0
"""Of the model's output, what products that put out INT8 must leave."""
RANKED_ON = 2
"""Batches: what is left is measured on all of them."""


def spare_outputs(calibrated: Calibrated) -> Calibrated:
    """`calibrated`, without products that put out INT8 where those cost too much.

    They have their weights alone in INT8 then, where the target stores them so.
    """
    writers, stored = calibrated.target.quantized_outputs, calibrated.target.stored
    if not any(layer.quantized and layer.op in writers for layer in calibrated.layers):
        return calibrated
    level_db = quality_db(calibrated)
    if level_db >= OUTPUTS_DB:
        return calibrated
    why = (
        f"INT8 products leave {_what(calibrated)} {level_db:.1f} dB on calibration images, less "
        f"than {OUTPUTS_DB:g}"
    )
    layers = (
        in_float(layer, why, stored=layer.op in stored)
        if layer.quantized and layer.op in writers
        else layer
        for layer in calibrated.layers
    )
    return replace(calibrated, layers=tuple(layers))


def spare_values(calibrated: Calibrated) -> Calibrated:
    """`calibrated`, P·V of every attention in float where its INT8 costs more than the target lets.

    Few tokens, or probabilities of one large and many small, leave too much to their rounding.
    """
    limit_db = calibrated.target.pv_within_db
    products = {x.node for x in calibrated.layers if x.quantized and x.role == "pv"}
    if not limit_db or not products:
        return calibrated
    whole_db = quality_db(calibrated)
    cost_db = quality_db(_in_float(calibrated, dict.fromkeys(products, ""))) - whole_db
    if cost_db <= limit_db:
        return calibrated
    why = (
        f"INT8 P·V costs the model's output {cost_db:.1f} dB on calibration images, more than "
        f"{limit_db:g}"
    )
    return _in_float(calibrated, dict.fromkeys(products, why))


def spare_layers(calibrated: Calibrated, progress: Progress) -> Calibrated:
    """`calibrated`, with the fewest layers in float that leave `LEAST_DB`, most harmful first.

    As it is where that is met already, where no number of layers would do, and where weights are
    of 4 bits: who asks for those wants them everywhere.
    """
    if calibrated.settings.weight_bits == 4:
        return calibrated
    model, _ = quantize(calibrated, lambda *step: None, {})
    whole_db = quality_db(calibrated, model)
    if whole_db >= LEAST_DB:
        return calibrated
    rounded = [layer.node for layer in calibrated.layers if layer.quantized or layer.stored]
    images, orders, rule = calibrated.images[:RANKED_ON], calibrated.orders, calibrated.detection
    ratios = harm(calibrated.path, model, rounded, images, progress, orders, detection=rule)
    ranking = sorted(ratios.items(), key=lambda item: -item[1])
    too_few, enough, best = 0, len(ranking), None
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        spared = _spared(calibrated, ranking[:count], whole_db)
        level_db = quality_db(spared)
        if level_db >= LEAST_DB:
            enough, best = count, (spared, level_db)
        else:
            too_few = count
    if best is None:
        return calibrated
    spared, level_db = best
    record = manifest.Spared(
        least_db=LEAST_DB,
        sqnr_db=level_db,
        full_sqnr_db=max(whole_db, -1e3),
        layers=len(ranking),
        kept=tuple(
            manifest.KeptLayer(node=node, noise_db=noise_db(ratio))
            for node, ratio in ranking[:enough]
        ),
    )
    return replace(spared, spared=record)


def _what(calibrated: Calibrated) -> str:
    """What is left of that is measured."""
    return "the model's logits and boxes" if calibrated.detection else "the model's output"


def _spared(calibrated: Calibrated, kept: list[tuple[str, float]], whole_db: float) -> Calibrated:
    """`calibrated` with the layers `kept` in float, the most harmful first."""
    eight_bit = calibrated.target.number_format.upper()
    whys = {
        node: f"kept in float, its {eight_bit} alone makes noise of {noise_db(ratio):.1f} dB: "
        f"{eight_bit} leaves {_what(calibrated)} {whole_db:.1f} dB on calibration images, less "
        f"than {LEAST_DB:g}"
        for node, ratio in kept
    }
    return _in_float(calibrated, whys)


def _in_float(calibrated: Calibrated, whys: Mapping[str, str]) -> Calibrated:
    """`calibrated` with the layers that `whys` names in float, for the reasons given."""
    layers = (
        in_float(layer, whys[layer.node]) if layer.node in whys else layer
        for layer in calibrated.layers
    )
    return replace(calibrated, layers=tuple(layers))

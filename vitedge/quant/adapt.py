"""Weights of PTQ rounded by what their layers read, and biases that make up for what is lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, numpy_helper

from vitedge.core import manifest
from vitedge.core.progress import Steps
from vitedge.core.spec import Calibration
from vitedge.quant.columns import Columns
from vitedge.quant.moments import Moments, RoundedLayer, collect
from vitedge.quant.nearest_plane import round_to_plane
from vitedge.quant.parameters import Calibrated, Integers
from vitedge.quant.placement import Placement, place
from vitedge.quant.qdq import weight_integers
from vitedge.quant.quality import quality_db

MOMENT_BYTES = 2**28
"""Of second moments that are in memory together; a pass over the images for each such part."""
LEAST_ROWS = 1
"""Rows for each input of a layer, at least: fewer say too little of which errors cancel."""
ENOUGH_DB = 25.0
"""Of the model's output: where nearest rounding leaves so much, `auto` is content."""

Batches = Callable[[], Iterator[NDArray[np.uint8]]]


@dataclass(frozen=True)
class _Adapted:
    """What was made of the weights, and why others stay as they are."""

    integers: dict[str, Integers]
    shifts: dict[str, NDArray[np.float32]]
    """By layer, what is added to its bias, (channels,)."""
    nearest: list[manifest.NearestLayer]


def adapt(
    calibrated: Calibrated, recipe: Calibration, batches: Batches, steps: Steps
) -> Calibrated:
    """`calibrated`, its weights rounded and its biases corrected as the recipe says.

    `batches` gives the calibration images again, (B, H, W, 3) of the graph's own batch size. It is
    as it was where that leaves more of the model's output on some of them.
    """
    if recipe.rounding == "auto":
        # boxes look better on the images that rounding is fitted to than on others, and layers that
        # harm them would not be spared
        if calibrated.detection or quality_db(calibrated) >= ENOUGH_DB:
            return calibrated
        recipe = msgspec.structs.replace(recipe, rounding="adaptive", bias_correction=True)
    if recipe.rounding == "nearest" and not recipe.bias_correction:
        return calibrated
    graph = onnx.load(calibrated.path, load_external_data=False).graph
    placed = place(graph, calibrated, {layer.node: layer for layer in calibrated.layers})
    layers = list(_layers(graph, placed))
    stored = {tensor.name: tensor for tensor in graph.initializer}
    folder = str(calibrated.path.parent)
    adapted = _Adapted({}, {}, [])
    start = time.monotonic()
    for part in _parts(layers):
        spent_s = time.monotonic() - start
        if recipe.rounding_budget_s and spent_s > recipe.rounding_budget_s:
            why = f"the {recipe.rounding_budget_s} s for rounding were over"
            adapted.nearest.extend(_nearest(layer, why) for layer in part)
            continue
        moments = collect(calibrated.path, part, batches(), recipe.num_samples, steps)
        for layer in part:
            weight = numpy_helper.to_array(stored[layer.weight], folder).astype(np.float32)
            _adapt(calibrated, recipe, layer, weight, moments[layer.weight], placed, adapted)
    return _better(calibrated, adapted, len(layers), steps)


def _layers(graph: GraphProto, placed: Placement) -> Iterator[RoundedLayer]:
    """Those with a weight in INT8 whose rows are known."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        weight = placed.reads.get(node.name, {}).get(1, "")
        columns = Columns.of(node, dims[weight]) if weight in placed.weights else None
        if columns is not None:
            reads = placed.reads[node.name].get(0, "")
            yield RoundedLayer(node, weight, columns, placed.activations.get(reads))


def _parts(layers: Sequence[RoundedLayer]) -> Iterator[list[RoundedLayer]]:
    """`layers` in parts whose moments are in memory together; those of a weight that is shared
    stand in one.
    """
    by_weight: dict[str, list[RoundedLayer]] = {}
    for layer in layers:
        by_weight.setdefault(layer.weight, []).append(layer)
    part: list[RoundedLayer] = []
    size = 0
    for group in by_weight.values():
        needed = group[0].columns.moment_bytes
        if part and size + needed > MOMENT_BYTES:
            yield part
            part, size = [], 0
        part, size = part + group, size + needed
    if part:
        yield part


def _adapt(
    calibrated: Calibrated,
    recipe: Calibration,
    layer: RoundedLayer,
    weight: NDArray[np.float32],
    moments: Moments,
    placed: Placement,
    adapted: _Adapted,
) -> None:
    """Add what becomes of one layer to `adapted`."""
    quantizer, columns = placed.weights[layer.weight], layer.columns
    integers, scales = weight_integers(calibrated, layer.weight, quantizer, weight)
    split, steps = columns.split(weight), scales.reshape(columns.groups, -1)
    too_few = moments.rows_seen < LEAST_ROWS * columns.inputs
    if recipe.rounding == "adaptive" and too_few:
        wanted = math.ceil(LEAST_ROWS * columns.inputs * recipe.num_samples / moments.rows_seen)
        why = (
            f"{columns.inputs} inputs, and {recipe.num_samples} images give it "
            f"{moments.rows_seen} rows: {wanted} images would do"
        )
        adapted.nearest.append(_nearest(layer, why))
    elif recipe.rounding == "adaptive":
        rounded = round_to_plane(
            split,
            steps,
            moments.second,
            quantizer.qmax,
            pair_safe=quantizer.pair_safe,
            fp8=quantizer.fp8,
        )
        integers = columns.join(rounded)
        adapted.integers[layer.weight] = integers, scales
    if recipe.bias_correction:
        read = columns.split(integers.astype(np.float32)) * steps[:, None]
        lost = np.einsum("gk,gkc->gc", moments.first_float, split)
        lost -= np.einsum("gk,gkc->gc", moments.first, read)
        adapted.shifts[layer.node.name] = (lost / moments.rows).astype(np.float32).reshape(-1)


def _nearest(layer: RoundedLayer, why: str) -> manifest.NearestLayer:
    return manifest.NearestLayer(node=layer.node.name, why=why)


def _better(calibrated: Calibrated, adapted: _Adapted, count: int, steps: Steps) -> Calibrated:
    """The best of `calibrated`, that with other integers, and that with other biases, too."""
    steps.say("comparing roundings")
    choices: list[tuple[Mapping[str, Integers], Mapping[str, NDArray[np.float32]]]] = [({}, {})]
    if adapted.integers:
        choices.append((adapted.integers, {}))
    if adapted.shifts:
        choices.append((adapted.integers, adapted.shifts))
    candidates = [replace(calibrated, integers=i, bias_shifts=s) for i, s in choices]
    levels = [quality_db(candidate) for candidate in candidates]
    best = int(np.argmax(levels))
    integers, shifts = choices[best]
    record = manifest.Rounding(
        layers=count,
        adaptive=len(integers),
        biases=len(shifts),
        nearest=tuple(adapted.nearest),
        nearest_sqnr_db=max(levels[0], -1e3),
        sqnr_db=max(levels[best], -1e3),
    )
    if adapted.nearest and integers:
        few = adapted.nearest[0]
        steps.note(
            f"{len(adapted.nearest)} of {count} weights are rounded to the nearest: '{few.node}' "
            f"first ({few.why})"
        )
    return replace(candidates[best], rounding=record)

"""Function-preserving rescaling of an FP32 graph, so that no channel outgrows the others.

One INT8 scale serves a whole activation: a single outlier channel leaves the others few levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from vitedge.errors import InputError
from vitedge.graph import channels
from vitedge.graph.channels import Channels, Factor
from vitedge.graph.moments import Key, Progress, measure, shapes, tapped
from vitedge.graph.run import Runner
from vitedge.graph.scales import Array, Choice, Group, choose, groups, key_of

PARITY_LIMIT = 1e-4
"""Largest |equalized − original| allowed, relative to the largest |original|."""
FILE = "equalized.onnx"
_UNSCALED = ("Softmax", "Gelu", "Erf", "Sigmoid", "Tanh", "Sqrt")
"""What scales cannot pass: their inputs, and so their outputs, are as they were."""


@dataclass(frozen=True)
class Pair:
    """Channels that were rescaled, and where that is undone."""

    sources: tuple[str, ...]
    """Nodes whose outputs are divided by the scales; of Q and K, one is multiplied."""
    users: tuple[str, ...]
    """Nodes in which the scales cancel."""
    strength: float
    """α of the scales max|x|^α / max|w|^(1−α)."""


@dataclass(frozen=True)
class Equalized:
    """The rescaled graph, which shares the original's external data, and how exact it is."""

    path: Path
    pairs: tuple[Pair, ...]
    max_rel_error: float


def equalize(
    fp32: Path, batches: Callable[[], Iterator[NDArray[np.uint8]]], total: int, progress: Progress
) -> Equalized:
    """Write, beside the ONNX file `fp32`, a graph that computes the same and quantizes better.

    SmoothQuant (Xiao 2023, eq. 4) wherever structure allows: LayerNorm → Linear, V → projection,
    Q ↔ K (in opposite directions), Linear or Conv → ReLU → Linear or Conv. α is chosen for each by
    the INT8 noise predicted from maxima. `batches` starts a stream of `total` calibration images
    (B, H, W, 3); only two values a channel are kept of them. Raises InputError when an activation
    is not finite, or when the two graphs disagree.
    """
    model = onnx.load(fp32, load_external_data=False)
    images = next(batches())
    sizes = shapes(model, fp32, images)
    found = channels.find(model, sizes, fp32.parent)
    moments = measure(model, fp32, _keys(found), sizes, batches(), total, progress)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def weights(node: NodeProto) -> NDArray[np.float32]:
        return numpy_helper.to_array(stored[node.input[1]], str(fp32.parent))

    free, pairs = np.ones(len(found.root)), []
    for group in groups(found):
        choice = choose(group, found, moments, weights)
        if choice:
            free[group.roots] = choice.scales
            pairs.append(_describe(found, group, choice))
    path = fp32.with_name(FILE)
    _rescale(model, fp32.parent, path, found.factors, free[found.root] ** found.sign)
    return Equalized(path, tuple(pairs), _check(model, fp32, path, images))


def _keys(found: Channels) -> list[Key]:
    """Which activations the choice needs to know."""
    reads = [(linear.activation, linear.activation_ids) for linear in found.linears]
    for product in found.products:
        reads += zip(product.node.input, (product.left, product.right), strict=True)
    return list(dict.fromkeys(key_of(name, ids) for name, ids in reads if found.root[ids].any()))


def _describe(found: Channels, group: Group, choice: Choice) -> Pair:
    starts = np.array(sorted(found.sources))
    members = np.flatnonzero(np.isin(found.root, group.roots))
    owners = np.unique(np.searchsorted(starts, members, side="right") - 1)
    sources = tuple(found.sources[int(starts[owner])].name for owner in owners)
    users = tuple(linear.node.name for linear in group.linears)
    users += tuple(product.node.name for product in group.products)
    return Pair(sources, users, choice.strength)


def _rescale(
    model: ModelProto, folder: Path, path: Path, factors: Iterable[Factor], scale: Array
) -> None:
    """Write `model` with its constants multiplied; only those are new in `path`'s data file."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    changes: dict[tuple[str, int], list[Factor]] = {}
    for factor in factors:
        if (scale[factor.ids] != 1).any():
            changes.setdefault((factor.node.name, factor.index), []).append(factor)
    with path.with_name(f"{path.name}.data").open("wb") as data:
        for (node, index), each in changes.items():
            name = each[0].node.input[index]
            value = numpy_helper.to_array(stored[name], str(folder)).astype(np.float64)
            for factor in each:
                value = value * scale[factor.ids] ** factor.power
            each[0].node.input[index] = f"{node}/equalized_{index}"
            tensor = TensorProto(
                name=each[0].node.input[index],
                data_type=TensorProto.FLOAT,
                dims=value.shape,
                data_location=TensorProto.EXTERNAL,
            )
            places = {
                "location": f"{path.name}.data",
                "offset": data.tell(),
                "length": value.size * 4,
            }
            for key, place in places.items():
                tensor.external_data.add(key=key, value=str(place))
            data.write(value.astype("<f4").tobytes())
            model.graph.initializer.append(tensor)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, path)


def _check(model: ModelProto, fp32: Path, path: Path, images: NDArray[np.uint8]) -> float:
    """The largest relative error of the output of `path`; InputError where it is too large."""
    error = _error(Runner(fp32)(images)[0], Runner(path)(images)[0])
    if error <= PARITY_LIMIT:
        return error
    where = _first_difference(model, fp32, path, images)
    raise InputError(
        f"equalizing changed what the model computes, by {error:.1e} relative, from {where} on",
        fix="use a calibration recipe with `equalize = false`",
    )


def _first_difference(model: ModelProto, fp32: Path, path: Path, images: NDArray[np.uint8]) -> str:
    """The first node of which the graphs must agree, because no scale is left, but do not."""
    fixed = {node.output[0]: node for node in model.graph.node if node.op_type in _UNSCALED}
    if not fixed:
        return "the output"
    original = onnx.load(fp32, load_external_data=False)
    runs = [tapped(m, p, [], list(fixed))(images) for m, p in ((original, fp32), (model, path))]
    for node, want, got in zip(fixed.values(), *runs, strict=True):
        if not _error(want, got) <= PARITY_LIMIT:
            return str(node.name)
    return "the output"


def _error(want: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    return float(np.abs(got - want).max()) / max(float(np.abs(want).max()), 1e-30)

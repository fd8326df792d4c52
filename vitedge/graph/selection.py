"""Which outputs of a graph are in an order that its own scores choose, as queries by a TopK.

Told by running it: with what a TopK puts out the other way around, such outputs are, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper, numpy_helper

from vitedge.core.matching import PAIRS
from vitedge.core.numerics import REWRITE_PARITY, relative_error
from vitedge.graph.constants import read_names
from vitedge.graph.run import Runner

FOLLOWS = 0.5
"""Share of a change that may be left where outputs that followed the order are put back."""


def ordered_by(
    path: Path, images: NDArray[np.uint8], outputs: list[NDArray[Any]]
) -> dict[str, str]:
    """The outputs (n, queries, …) of the ONNX file `path` whose order scores choose, by name.

    With the TopK that does, after PAIRS where columns go with rows; outputs of one TopK share their
    order. Its `outputs` are for `images`. What is sorted values alone is in no such order: its
    place says what it is.
    """
    graph = onnx.load(path, load_external_data=False).graph
    computed = _reached(graph, [graph.input[0].name])
    orders: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "TopK" or not computed.intersection(node.input):
            continue
        after = _reached(graph, [node.output[1]])
        if any(value.name in after for value in graph.output):
            turned = _turned(path, node.name)(images)
            triples = zip((value.name for value in graph.output), outputs, turned, strict=True)
            orders |= _followers(triples, node.name)
    return orders


def _followers(
    triples: Iterable[tuple[str, NDArray[Any], NDArray[Any]]], choice: str
) -> dict[str, str]:
    """The order of outputs that turned around with the TopK `choice`.

    With one go all that changed and have as many rows: they are of the same queries, even where
    these learn something by their place, and logits of a turned query are no turned logits.
    """
    groups: dict[int, list[tuple[str, NDArray[Any], NDArray[Any]]]] = {}
    for name, before, after in triples:
        if before.ndim > 1 and relative_error(before, after) > REWRITE_PARITY:
            groups.setdefault(before.shape[1], []).append((name, before, after))
    orders: dict[str, str] = {}
    for group in groups.values():
        pairs = {name for name, before, after in group if _is_of_pairs(before, after)}
        if any(
            np.square(after[:, ::-1] - before).sum() < FOLLOWS * np.square(after - before).sum()
            for name, before, after in group
            if name not in pairs
        ):
            orders |= {name: PAIRS * (name in pairs) + choice for name, *_ in group}
    return orders


def _is_of_pairs(before: NDArray[Any], after: NDArray[Any]) -> bool:
    """Whether columns turned around with rows, as of (n, queries, queries): no row is a query's."""
    if before.ndim < 3 or before.shape[1] != before.shape[2]:
        return False
    rows, both = after[:, ::-1], after[:, ::-1, ::-1]
    return bool(np.square(both - before).sum() < FOLLOWS * np.square(rows - before).sum())


def _reached(graph: GraphProto, names: Iterable[str]) -> set[str]:
    """`names`, and all that is computed of them."""
    reached = set(names)
    for node in graph.node:
        if reached & read_names([node]):
            reached.update(node.output)
    return reached


def _turned(path: Path, name: str) -> Runner:
    """The graph of `path`, with what its TopK `name` puts out the other way around."""
    model = onnx.load(path, load_external_data=False)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type != "TopK" or node.name != name:
            continue
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        slices = {"starts": -1, "ends": np.iinfo(np.int64).min, "axes": axis, "steps": -1}
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array([value], np.int64), f"{name}/{key}")
            for key, value in slices.items()
        )
        for place, output in enumerate(node.output):
            node.output[place] = f"{output}/sorted"
            names = [node.output[place], *(f"{name}/{key}" for key in slices)]
            nodes.append(helper.make_node("Slice", names, [output], f"{name}/turned_{place}"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    turned = path.with_name("turned.onnx")  # shares its external data
    onnx.save(model, turned)
    try:
        return Runner(turned)
    finally:
        turned.unlink()

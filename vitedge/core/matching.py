"""Which of an artifact's queries is which of FP32's, where a model orders them by its own scores.

There INT8 turns near ties around, and an error position by position compares unlike queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PAIRS = "rows and columns by "
"""Begins the order of outputs (n, queries, queries): relations of queries that another order has.
"""
KEPT = 0.1
"""Largest squared error of a query that is FP32's still, relative to their variance."""
_WIDTH = 1024
"""Values of a query that distances are taken of: masks have more, which tell no more."""
_FEW = 16
"""Once less than one in so many is paired in a round, the rest is paired one by one."""


class Matching(NamedTuple):
    """Outputs (n, queries, …) of an artifact in the order of FP32's queries."""

    outputs: list[NDArray[Any]]
    kept: NDArray[np.bool_]
    """Of each query of FP32's: whether its partner is nearer than `KEPT`, outputs together."""


def in_order(
    fp32: Sequence[NDArray[Any]], artifact: Sequence[NDArray[Any]], orders: Sequence[str]
) -> Matching:
    """Outputs of `artifact`, those that have an order, as `Manifest.orders` says, in FP32's.

    These may be the first few outputs alone, and their `orders` the first of more or none.
    `kept` is of all orders' queries, (queries,).
    """
    outputs, kept = list(artifact), [np.zeros(0, bool)]
    orders = orders[: len(outputs)]
    for order in dict.fromkeys(by for by in orders if by and not by.startswith(PAIRS)):
        places = [place for place, by in enumerate(orders) if by == order]
        columns, near = match(*([x[place] for place in places] for x in (fp32, outputs)))
        kept.append(near.ravel())
        rows = np.arange(len(columns))[:, None]
        for place, by in enumerate(orders):
            if by in (order, PAIRS + order):
                outputs[place] = outputs[place][rows, columns]
            if by == PAIRS + order:
                outputs[place] = outputs[place].swapaxes(1, 2)[rows, columns].swapaxes(1, 2)
    return Matching(outputs, np.concatenate(kept))


def match(
    fp32: Sequence[NDArray[Any]], artifact: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Which query of `artifact` is which of FP32, both outputs (n, queries, …), and the `kept`.

    Both are (n, queries). All outputs are of the same queries, and these move together: to the
    nearest of FP32's, each paired once, nearest pairs first. An output counts by how far apart
    FP32's queries are in it. Queries of an image whose outputs are not finite stay as they are.
    """
    orders, kept = [], []
    for want, got in zip(zip(*fp32, strict=True), zip(*artifact, strict=True), strict=True):
        cost = distances(want, got)
        order = nearest(cost) if np.isfinite(cost).all() else np.arange(len(cost))
        orders.append(order)
        kept.append(cost[np.arange(len(cost)), order] < KEPT * len(want))
    return np.stack(orders), np.stack(kept)


def distances(want: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Of each query in `want` from each in `got`, (queries, queries), over outputs (queries, …).

    Squares, relative to the variance of the queries of `want` in that output, summed.
    """
    parts = []
    for target, output in zip(want, got, strict=True):
        pair = np.stack([x.reshape(len(x), -1).astype(np.float64) for x in (target, output)])
        pair = pair[..., :: -(-pair.shape[2] // _WIDTH)]
        pair -= pair[0].mean(axis=0)  # what all queries share would leave few digits
        parts.append(pair / max(float(np.sqrt(np.square(pair[0]).sum(-1).mean())), 1e-30))
    a, b = np.concatenate(parts, axis=2)
    ones = np.ones((len(a), 1))
    a_squared, b_squared = (np.square(x).sum(axis=1, keepdims=True) for x in (a, b))
    # |a|² + |b|² - 2ab in one product
    return np.asarray(np.hstack([a, a_squared, ones]) @ np.hstack([-2 * b, ones, b_squared]).T)


def nearest(cost: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each row of `cost` (q, q) the column paired with it, the least of all pairs first."""
    order = np.zeros(len(cost), np.intp)
    rows = columns = np.arange(len(cost))
    while len(rows):
        best = cost.argmin(axis=1)
        mutual = cost.argmin(axis=0)[best] == np.arange(len(rows))
        if mutual.sum() * _FEW < len(rows):
            break
        order[rows[mutual]] = columns[best[mutual]]
        free = np.ones(len(columns), bool)
        free[best[mutual]] = False
        rows, columns, cost = rows[~mutual], columns[free], cost[np.ix_(~mutual, free)]
    cost = cost.copy()
    for row in cost.min(axis=1).argsort() if len(rows) else ():
        column = cost[row].argmin()
        order[rows[row]] = columns[column]
        cost[:, column] = np.inf
    return order

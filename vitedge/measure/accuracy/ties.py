"""Classes whose scores tie: equal to rounding, so their order is the runtime's whim, not a choice.

scikit-learn gives a tie to the highest index, TensorFlow to every class, PyTorch to any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

ROUNDING = 1e-6
"""Relative difference of two scores that may be one and the same: 8 units in float32's last place.
Relative to the two, not to the range: a class masked by -1e9 must not make all others tie."""
GOLDEN_RATIO = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, fill 0-1 more evenly than a draw."""


def tied(first: Scores, second: Scores) -> NDArray[np.bool_]:
    """Whether scores are the same but for rounding; NaN is the same as nothing."""
    with np.errstate(invalid="ignore"):  # ∞ - ∞
        near = np.abs(first - second) <= ROUNDING * np.maximum(np.abs(first), np.abs(second))
    return np.asarray(np.where(np.isfinite(first) & np.isfinite(second), near, first == second))


def best(scores: Scores) -> NDArray[np.bool_]:
    """Which classes of (n, C, …) no other one beats; none beside a NaN."""
    return tied(scores, scores.max(axis=1, keepdims=True))


def agreement(want: Scores, got: Scores) -> NDArray[np.float64]:
    """The share of the best classes of `got` that are best in `want`, (n, …) of (n, C, …).

    1 or 0 where there is one best class; a tie of two, of which one is wanted, is half. What gives
    every class the same score has one in C.
    """
    chosen = best(got)
    shared = (chosen & best(want)).sum(axis=1)
    return np.asarray(shared / np.maximum(chosen.sum(axis=1), 1))


def placed(logits: Scores, labels: NDArray[Any]) -> NDArray[np.int32]:
    """Where the label comes among the classes, (3, n) of logits (n, C) and labels (n,).

    How many classes come before it, how many tie with it, itself among them, and the best class
    that is another, -1: none. Logits with NaN among them rank no class: all come before.
    """
    chosen = np.take_along_axis(logits, labels[:, None], axis=1)
    equal = tied(logits, chosen)
    lost = np.isnan(logits.max(axis=1))
    above = np.where(lost, logits.shape[1], ((logits > chosen) & ~equal).sum(axis=1))
    others = best(logits)
    others[np.arange(len(labels)), labels] = False
    other = np.where(others.any(axis=1), others.argmax(axis=1), -1)
    return np.stack([above, np.where(lost, 0, equal.sum(axis=1)), other]).astype(np.int32)


def ranks(places: NDArray[np.int32]) -> NDArray[np.int64]:
    """How many classes come before the label's, (n,), of all images as `placed` has them, (3, n).

    Classes that tie come in an order by lot, so that each is as likely to be first. The lot is the
    image's, by its place among all: two models that tie alike rank alike, and the order of the
    classes has no part in it.
    """
    above, equal, _ = places.astype(np.int64)
    lots = (GOLDEN_RATIO * (np.arange(len(above)) + 0.5)) % 1
    return np.asarray(above + (lots * equal).astype(np.int64))


def choices(
    places: NDArray[np.int32], labels: NDArray[np.int32], ranks: NDArray[np.int64]
) -> NDArray[np.int32]:
    """The class chosen, (n,), of `placed`, labels (n,) and `ranks`; -1 beside a NaN."""
    return np.where(ranks == 0, labels, places[2])

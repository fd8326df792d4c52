"""What a detector's outputs say: which queries show what, where, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.spec import Detection


class Detections(NamedTuple):
    """Those of one image, the surest first; equally sure ones in the order of queries, classes."""

    scores: NDArray[np.float32]
    """(k,) 0-1."""
    classes: NDArray[np.int64]
    """(k,) indices."""
    boxes: NDArray[np.float32]
    """(k, 4) left, top, right, bottom, relative to the sides of the model's input."""
    queries: NDArray[np.int64]
    """(k,) which of the model's queries each is of."""


def detections(
    logits: NDArray[np.float32], boxes: NDArray[np.float32], rule: Detection
) -> Detections:
    """What one image's logits (queries, classes) and boxes (queries, 4) say by `rule`.

    As `post_process_object_detection` of transformers does it before its threshold. A query whose
    logits or box are not finite detects nothing.
    """
    scores = class_scores(logits, rule)
    corners = as_corners(boxes, rule)
    sound: NDArray[np.bool_] = np.isfinite(np.hstack([scores, corners])).all(axis=1)
    sound &= (logits < np.inf).all(axis=1)  # -∞ is a class that cannot be
    scores = np.where(sound[:, None], scores, -1.0)
    count, classes_count = scores.shape
    if rule.scores == "softmax":
        classes = scores.argmax(axis=1)
        best = scores.max(axis=1)
        order = np.argsort(-best, kind="stable")
        kept, queries = best[order], order
        classes = classes[order]
    else:
        flat = scores.reshape(-1)
        order = np.argsort(-flat, kind="stable")[: rule.most or count]
        kept, queries, classes = flat[order], order // classes_count, order % classes_count
    whole = kept >= 0
    queries = queries[whole]
    return Detections(
        kept[whole].astype(np.float32), classes[whole].astype(np.int64), corners[queries], queries
    )


def rows(outputs: Sequence[NDArray[np.float32]], rule: Detection) -> NDArray[np.float32]:
    """Detections of logits (n, queries, classes) and boxes (n, queries, 4) as (n, k, 6): score,
    class, left, top, right, bottom. An image with fewer than k has scores of -1 at its end."""
    of_images = [detections(*pair, rule) for pair in zip(outputs[0], outputs[1], strict=True)]
    most = max((len(image.scores) for image in of_images), default=0)
    table = np.full((len(of_images), most, 6), -1, np.float32)
    for place, image in zip(table, of_images, strict=True):
        count = len(image.scores)
        place[:count, 0], place[:count, 1], place[:count, 2:] = image[:3]
    return table


def class_scores(logits: NDArray[np.float32], rule: Detection) -> NDArray[np.float64]:
    """How sure each class of logits (…, classes) is, 0-1, no-object left out."""
    exact = logits.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        if rule.scores == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-exact)))
        powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=-1, keepdims=True))[..., :-1])


def as_corners(boxes: NDArray[Any], rule: Detection) -> NDArray[np.float32]:
    """Boxes (…, 4) as left, top, right, bottom."""
    if rule.boxes == "corners":
        return np.asarray(boxes, np.float32)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1).astype(np.float32)


def areas(boxes: NDArray[Any]) -> NDArray[Any]:
    """Of corners (…, 4); 0 of what is empty or reversed."""
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def iou(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of corners (…, 4), pair by pair; of two empty ones 1 if equal."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = areas(a) + areas(b) - shared
    same = (a == b).all(axis=-1)
    shares = np.where(union > 0, shared / np.maximum(union, 1e-30), same)
    return np.asarray(shares, np.float64)


class BoxLikeness(NamedTuple):
    """How alike the boxes of two models are: sums over queries, to be added up over images."""

    shared: float
    """Of intersections over union, times weights."""
    weight: float
    """How sure the first model is that queries show anything."""

    @property
    def iou(self) -> float:
        """Their mean, 0-1."""
        return self.shared / max(self.weight, 1e-30)


def box_likeness(
    fp32: Sequence[NDArray[np.float32]], artifact: Sequence[NDArray[np.float32]], rule: Detection
) -> BoxLikeness:
    """Of logits (n, queries, classes) and boxes (n, queries, 4), the queries in one order.

    A box that is not finite is like none.
    """
    weights = class_scores(fp32[0], rule).max(axis=-1)
    shared = iou(*(as_corners(outputs[1], rule) for outputs in (fp32, artifact)))
    return BoxLikeness(float((weights * np.nan_to_num(shared)).sum()), float(weights.sum()))


def check_shapes(outputs: Sequence[NDArray[Any]], rule: Detection, classes: int, name: str) -> None:
    """Raise InputError unless the first two `outputs` of model `name` are logits and boxes."""
    shapes = [output.shape for output in outputs[:2]]
    columns = classes + rule.no_object
    match shapes:
        case [(images, queries, given), (other, also, 4)]:
            if (images, queries, given) == (other, also, columns):
                return
    said = ", ".join(map(str, shapes))
    beside = " and no object" if rule.no_object else ""
    raise InputError(
        f"{name} gives {said}, not logits (B, queries, {columns}) of {classes} classes{beside}, "
        "and boxes (B, queries, 4)",
        fix="name its logits and then its boxes with `model_output`, and one label for each class",
    )

"""The ids of channels: arrays shaped as the tensors they label, and what ties them together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""One id for each value of a tensor; 0 where the value is a literal zero, whatever its scale."""


def along(ids: Ids, axes: Iterable[int]) -> Ids | None:
    """`ids` with 1 along every axis but `axes`; None where they differ along another axis."""
    others = tuple(i for i in range(ids.ndim) if i not in axes)
    channel: Ids = ids.max(axis=others, keepdims=True)
    return channel if ((ids == channel) | (ids == 0)).all() else None


def narrow(ids: Ids) -> Ids:
    """`ids` with 1 along every axis on which they do not vary."""
    for axis in range(ids.ndim):
        first = ids.take([0], axis)
        if (ids == first).all():
            ids = first
    return ids


def join(
    count: int, ties: list[tuple[Ids, Ids]], equal: list[tuple[Ids, Ids]], fixed: list[Ids]
) -> tuple[Ids, Ids]:
    """Root and sign of each id, where scale[a] · scale[b] = 1 for every tie (a, b), and scale[a] =
    scale[b] for every pair that is `equal`.
    """
    parent, sign = list(range(count)), [1] * count

    def find_root(channel: int) -> tuple[int, int]:
        path = 1
        while parent[channel] != channel:
            path *= sign[channel]
            channel = parent[channel]
        return channel, path

    fixed_ids = {0}
    for ids in fixed:
        fixed_ids.update(ids.tolist())
    for power, pairs in ((-1, ties), (1, equal)):  # scale[a] = scale[b] ** power
        for left, right in pairs:
            for a, b in np.unique(np.stack([left, right], axis=1), axis=0).tolist():
                (ra, sa), (rb, sb) = find_root(a), find_root(b)
                if ra != rb:
                    parent[rb], sign[rb] = ra, power * sa * sb
                elif sa * sb != power:  # scale² = 1
                    fixed_ids.add(ra)
    roots = [find_root(channel) for channel in range(count)]
    fixed_roots = {roots[channel][0] for channel in fixed_ids}
    root = np.array([0 if r in fixed_roots else r for r, _ in roots], np.int64)
    return root, np.array([s for _, s in roots], np.int64)

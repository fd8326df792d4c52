"""How like FP32's outputs an artifact's are: the error of pixels, or the neighbours of features."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import InputError, SharedError
from vitedge.core.exact_sum import ExactSum
from vitedge.core.named_arrays import prefixed, under
from vitedge.core.numerics import as_maps, by_position
from vitedge.core.report import Compared
from vitedge.measure.accuracy.metric import MetricResult, Outputs, compared
from vitedge.measure.statistics import resampled_drop_pp

NEIGHBOURS = 10
_SUMS = ("above", "below", "squares")
"""Of FP32's values by channel: those above 0, those below it, and the squares of all."""
TOKENS = 2**14
"""Vectors whose neighbours are looked for, of features with several for each image."""


class PixelError:
    """How far dense maps (n, C, h, w) or (n, h, w) are from FP32's, pixel by pixel.

    A pixel's error is the mean of |artifact - FP32| over its channels, relative to the spread of
    FP32's values: their root mean square distance from the mean of their channel, over all images.
    One that is not finite counts as 1. The metric is the mean over pixels; `pixel_error_p99` the
    error that 1% of an image's pixels exceed, a mean over images.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[float, float, float]] = []  # an image's: sum, pixels lost, p99
        self._sums = [ExactSum() for _ in _SUMS]  # (C,) each
        self._pixels = 1

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        if fp32 is None:
            raise _no_reference()
        for got, want in zip(as_maps(artifact), as_maps(fp32), strict=True):
            want = want.reshape(len(want), -1).astype(np.float64)
            with np.errstate(invalid="ignore"):
                error = np.abs(got.reshape(want.shape) - want).mean(axis=0)
            error[~np.isfinite(error)] = np.inf
            finite = np.isfinite(error)
            p99 = float(np.quantile(error, 0.99, method="higher"))
            self._errors.append((float(error[finite].sum()), float((~finite).sum()), p99))
            self._pixels = error.size
            values = want.sum(axis=1)[None]
            terms = (
                np.maximum(values, 0),
                np.maximum(-values, 0),
                np.square(want).sum(axis=1)[None],
            )
            for total, term in zip(self._sums, terms, strict=True):
                total.add(term)

    def arrays(self) -> dict[str, NDArray[Any]]:
        named = {"errors": np.array(self._errors), "pixels": np.array(self._pixels)}
        for name, total in zip(_SUMS, self._sums, strict=True):
            named |= prefixed(name, total.arrays())
        return named

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        self._errors += map(tuple, stored["errors"].tolist())
        self._pixels = int(stored["pixels"])
        for name, total in zip(_SUMS, self._sums, strict=True):
            total.join(under(name, stored))

    def result(self, confidence: float) -> MetricResult:
        above, below, squares = (total.values for total in self._sums)
        values, count = above - below, float(self._pixels * len(self._errors))
        spread = float(np.sqrt(np.maximum(squares / count - np.square(values / count), 0).mean()))
        spread = max(spread, float(np.sqrt((squares / count).mean())) * 1e-6, 1e-30)
        sums, lost, p99 = np.array(self._errors).T
        error = (sums / spread + lost) / self._pixels
        worst = float(np.where(np.isinf(p99), 1.0, p99 / spread).mean())
        return MetricResult(
            metric="pixel_error",
            value=_error(float(error.mean())),
            drop_ci_pp=resampled_drop_pp(
                np.zeros_like(error), error, lambda sums: -sums / len(error), confidence
            ),
            agreement=None,
            also={"pixel_error_p99": _error(worst)},
            fp32=np.zeros_like(error),
            artifact=error,
        )


def _error(value: float) -> Compared:
    """An error that FP32 has none of by definition."""
    return Compared(fp32=0.0, artifact=value, drop_pp=100 * value)


def _no_reference() -> InputError:
    return InputError(
        "its outputs are compared with FP32's, and the FP32 bundle is not here",
        fix="put the FP32 bundle beside the artifact",
    )


class Neighbours:
    """Whether features (n, …) keep their neighbours: FP32 is right by definition.

    k-NN agreement: the share of a vector's 10 nearest others by cosine, in FP32's features, that
    are among its 10 nearest in the artifact's. The vectors are those of images or, of features
    (n, N, C) and (n, C, h, w), of their tokens: a random few of each image, so that no more than
    TOKENS are kept, or one for each image.
    """

    def __init__(self) -> None:
        self._artifact: list[Outputs] = []
        self._fp32: list[Outputs] = []
        self._tokens = TOKENS

    def add(self, labels: NDArray[Any], artifact: Outputs, fp32: Outputs | None) -> None:
        if fp32 is None:
            raise _no_reference()
        for got, want in zip(by_position(artifact), by_position(fp32), strict=True):
            lot = np.random.default_rng(zlib.crc32(want.tobytes()))  # the image's own
            places = lot.permutation(len(want))[: self._tokens]
            self._artifact.append(_unit(got[places]))
            self._fp32.append(_unit(want[places]))
            self._cut()

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"artifact": np.array(self._artifact), "fp32": np.array(self._fp32)}

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        for got, want in zip(stored["artifact"], stored["fp32"], strict=True):
            self._artifact.append(got[: self._tokens])
            self._fp32.append(want[: self._tokens])
            self._cut()

    def _cut(self) -> None:
        """Halve the vectors of each image until all are few enough."""
        tokens = min(map(len, (self._fp32[0], self._fp32[-1])))
        while len(self._fp32) * tokens > TOKENS and tokens > 1:
            tokens //= 2
        if tokens < max(map(len, (self._fp32[0], self._fp32[-1]))):
            self._tokens = tokens
            for kept in (self._artifact, self._fp32):
                kept[:] = [vectors[:tokens].copy() for vectors in kept]

    def result(self, confidence: float) -> MetricResult:
        artifact, fp32 = np.concatenate(self._artifact), np.concatenate(self._fp32)
        k = min(NEIGHBOURS, len(fp32) - 1)
        if k < 1:
            raise SharedError("one image has no neighbours", fix="give more images")
        neighbours, fp32_neighbours = _nearest(artifact, k), _nearest(fp32, k)
        matches = neighbours[:, :, None] == fp32_neighbours[:, None, :]  # (vectors, k, k)
        of_vectors = matches.sum(axis=(1, 2)) / k
        of_vectors[np.isnan(artifact).any(axis=1)] = 0  # it has no neighbours
        shared = of_vectors.reshape(len(self._fp32), -1).mean(axis=1)
        return MetricResult(
            metric="knn_agreement",
            value=compared(1.0, float(shared.mean())),
            drop_ci_pp=resampled_drop_pp(
                np.ones_like(shared), shared, lambda sums: sums / len(shared), confidence
            ),
            agreement=float((neighbours[:, 0] == fp32_neighbours[:, 0]).mean()),
            also={},
            fp32=np.ones_like(shared),
            artifact=shared,
        )


def _unit(vectors: Outputs) -> Outputs:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12))


def _nearest(features: Outputs, k: int) -> NDArray[np.int64]:
    """Indices (n, k) of the other vectors with the largest cosine, nearest first."""
    blocks = []
    for start in range(0, len(features), 256):
        cosines = features[start : start + 256] @ features.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # not its own neighbour
        blocks.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.concatenate(blocks)

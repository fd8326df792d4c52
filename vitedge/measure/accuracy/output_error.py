"""How far an artifact's outputs are from FP32's: as a whole, and of its worst token or pixel.

One large token outshouts the noise of all the others in an SQNR over the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core.exact_sum import ExactSum
from vitedge.core.matching import in_order
from vitedge.core.named_arrays import prefixed, under
from vitedge.core.numerics import as_maps, by_position, cosines, decibels, sqnr_db
from vitedge.core.report import Numerics, OutputNumerics, TokenSqnr
from vitedge.core.spec import Detection, Task
from vitedge.measure.accuracy.detection_error import DetectionErrors
from vitedge.measure.accuracy.variation import Variation

Output = NDArray[np.float32]
CHUNK_BYTES = 2**24
"""Of float32, that are in float64 at a time."""


class OutputError:
    """Error of one output against FP32's: the same for any order and batches of the images."""

    def __init__(self, *, matched: bool = False) -> None:
        """`matched`: its positions are queries, which have none of their own."""
        self._matched = matched
        self._signal, self._noise = ExactSum(), ExactSum()  # (positions,)
        self._cosines: list[NDArray[np.float64]] = []  # an image's, a mean over its positions
        self._max = 0.0
        self._images, self._dense = 0, False
        self._variation = Variation()

    def update(self, fp32: Output, artifact: Output) -> None:
        """Add the outputs (n, D), of tokens (n, N, C) or of pixels (n, C, h, w), of one batch."""
        self._dense = fp32.ndim in (3, 4) and not self._matched
        step = max(1, CHUNK_BYTES // max(1, fp32[:1].nbytes))
        for start in range(0, len(fp32), step):
            part = slice(start, start + step)
            self._add(*(by_position(x[part]).astype(np.float64) for x in (fp32, artifact)))
        self._images += len(fp32)
        self._variation.update(fp32)

    def _add(self, want: NDArray[np.float64], got: NDArray[np.float64]) -> None:
        """Both (n, positions, channels)."""
        with np.errstate(invalid="ignore"):  # what is not finite makes all of the error so
            difference = want - got
            self._signal.add(np.einsum("npc,npc->np", want, want))
            self._noise.add(np.einsum("npc,npc->np", difference, difference))
            self._max = float(np.maximum(self._max, np.abs(difference).max(initial=0.0)))
            if want.shape[2] == 1:  # a vector of one number has but a sign
                want, got = (x.reshape(len(x), 1, -1) for x in (want, got))
            self._cosines.append(cosines(want, got).mean(axis=1))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was seen, to be joined elsewhere."""
        return {
            **prefixed("signal", self._signal.arrays()),
            **prefixed("noise", self._noise.arrays()),
            **prefixed("variation", self._variation.arrays()),
            "cosines": np.concatenate([np.zeros(0), *self._cosines]),
            "max": np.array(self._max),
            "dense": np.array(self._dense),
        }

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add what another part of the images came to, as its `arrays` say."""
        self._signal.join(under("signal", stored))
        self._noise.join(under("noise", stored))
        self._variation.join(under("variation", stored))
        self._cosines.append(stored["cosines"])
        self._max = float(np.maximum(self._max, stored["max"]))
        self._images += len(stored["cosines"])
        self._dense = bool(stored["dense"])

    def numerics(self) -> OutputNumerics:
        """The error over everything seen."""
        signal, noise = (float(np.sum(part.values)) for part in (self._signal, self._noise))
        finite = math.isfinite(noise)
        return OutputNumerics(
            sqnr_db=sqnr_db(signal, noise),
            max_abs_error=self._max if finite else None,
            cosine=math.fsum(np.concatenate(self._cosines)) / self._images if finite else None,
            token_sqnr_db=self._tokens() if finite and self._dense else None,
        )

    def result(self, data: str, distinct: int | None = None) -> Numerics:
        """The same as the numerics of a model with one output, as `numerics` says."""
        return numerics({"": self}, data, distinct)

    @property
    def images(self) -> int:
        """How many have been seen."""
        return self._images

    def degenerate(self, distinct: int | None) -> str:
        """Why so many `distinct` images, None: all of them, prove nothing; empty where they may."""
        return self._variation.degenerate(self._images if distinct is None else distinct)

    def _tokens(self) -> TokenSqnr | None:
        """SQNR of the positions that have a signal; None where none of these has noise."""
        pairs = zip(self._signal.values.tolist(), self._noise.values.tolist(), strict=True)
        levels = sorted(decibels(s / n) if n else math.inf for s, n in pairs if s)
        if not levels or levels[0] == math.inf:
            return None
        p5 = levels[math.floor(0.05 * (len(levels) - 1))]
        return TokenSqnr(worst=levels[0], p5=None if p5 == math.inf else p5)


class OutputErrors:
    """The error of each output by its name, the main one first.

    Queries whose `orders` scores choose, as `Manifest.orders` says, are matched with FP32's. Of a
    detector, `detection` says how the first two are read.
    """

    def __init__(
        self,
        names: Iterable[str],
        task: Task,
        orders: Sequence[str] = (),
        detection: Detection | None = None,
    ) -> None:
        names = tuple(names)
        self._orders = orders or ("",) * len(names)
        pairs = zip(names, self._orders, strict=True)
        self._errors = {name: OutputError(matched=bool(order)) for name, order in pairs}
        self._task = task
        self._detections = DetectionErrors(detection) if detection else None
        self._queries = self._kept = 0

    @property
    def count(self) -> int:
        """How many outputs there are."""
        return len(self._errors)

    def matched(self, fp32: Sequence[Output], artifact: Sequence[Output]) -> list[Output]:
        """The outputs of `artifact`, with queries in the order of FP32's; counts those kept."""
        outputs, kept = in_order(fp32, artifact, self._orders)
        self._queries += kept.size
        self._kept += int(kept.sum())
        return outputs

    def update(self, fp32: Sequence[Output], artifact: Sequence[Output]) -> None:
        """Add the outputs of one batch, `matched`, in the order of the names."""
        if self._detections:
            self._detections.update(fp32, artifact)
        outputs = zip(self._errors.values(), fp32, artifact, strict=True)
        for place, (error, want, got) in enumerate(outputs):
            maps = self._task == "dense" and not place
            error.update(*(as_maps(x) if maps else x for x in (want, got)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was seen, to be joined elsewhere."""
        named = {"queries": np.array([self._queries, self._kept])}
        for place, error in enumerate(self._errors.values()):
            named |= prefixed(f"output{place}", error.arrays())
        if self._detections:
            named |= prefixed("detections", self._detections.arrays())
        return named

    def join(self, stored: Mapping[str, NDArray[Any]]) -> None:
        """Add what another part of the images came to, as its `arrays` say."""
        queries, kept = stored["queries"].tolist()
        self._queries += queries
        self._kept += kept
        for place, error in enumerate(self._errors.values()):
            error.join(under(f"output{place}", stored))
        if self._detections:
            self._detections.join(under("detections", stored))

    def result(self, data: str, distinct: int | None = None) -> Numerics:
        """The error over everything seen, as `numerics` says."""
        result = numerics(self._errors, data, distinct)
        kept = self._kept / self._queries if self._queries else None
        found = self._detections.result() if self._detections else None
        return msgspec.structs.replace(result, kept_queries=kept, detections=found)


def numerics(errors: Mapping[str, OutputError], data: str, distinct: int | None = None) -> Numerics:
    """That of the first output over images called `data`, and of each where there are several.

    So many `distinct` images tell whether the first varies; None: all are.
    """
    outputs = {name: error.numerics() for name, error in errors.items()}
    main, error = next(iter(outputs.values())), next(iter(errors.values()))
    return Numerics(
        **msgspec.structs.asdict(main),
        n=error.images,
        data=data,
        degenerate=error.degenerate(distinct),
        outputs=outputs if len(outputs) > 1 else {},
    )

"""From an image file to outputs: decode, resize and run, each and as a whole, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.measurements import EndToEnd
from vitedge.core.runtime import Session
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, decode
from vitedge.data.geometry import fit
from vitedge.measure.latency.clock import ROUNDS, Feed, golden_feed, no_gc, rounds_for
from vitedge.measure.latency.photographs import FORMATS, Photographs
from vitedge.measure.latency.request import BenchRequest
from vitedge.measure.latency.summary import summarize
from vitedge.runtimes import open_session


class Parts(NamedTuple):
    """One run from files to outputs, nanoseconds."""

    decode: int
    resize: int
    run: int


def end_to_end(
    bundle: Bundle,
    request: BenchRequest,
    images: Photographs,
    on_progress: Callable[[float], None],
) -> EndToEnd:
    """Time what `predict` does with files, about `duration_s` seconds; 3 rounds at any price.

    A round takes the next images and goes three times: from files to outputs as a whole, with no
    look at the clock in between; the same with a look after each part; and the run alone, on what
    was decoded, after one that is not timed. The first two change places every round, as the
    second finds caches warm.

    Raises InputError for a batch it does not take, or an image that cannot be resized for it.
    """
    spec = bundle.manifest.preprocessing.host
    with open_session(bundle, request.threads) as session:
        feed = golden_feed(bundle, session, request.batch)
        batch = len(next(iter(feed.values())))
        pipeline = Pipeline(session, spec)
        groups = _groups(images.paths, batch)
        wholes: list[int] = []
        parts: list[Parts] = []
        alone: list[int] = []
        try:
            with no_gc():
                start = perf_counter_ns()
                feed = pipeline.warm_up(next(groups))
                round_ns = 3 * (perf_counter_ns() - start)
                budget_ns = request.duration_s * 1e9
                least = max(3, min(ROUNDS, int(3 * budget_ns / round_ns)))
                for number in rounds_for(request.duration_s, least, on_progress):
                    files = next(groups)
                    if number % 2:
                        wholes.append(pipeline.whole(files))
                    took, feed = pipeline.parts(files)
                    parts.append(took)
                    if not number % 2:
                        wholes.append(pipeline.whole(files))
                    alone.append(pipeline.alone(feed))
        except Skip as skip:
            raise InputError(
                f"an image of '{images.name}' is not usable for {bundle.path}: {skip}", fix=FORMATS
            ) from skip
    columns = np.array(parts, dtype=np.float64) / 1e6
    return EndToEnd(
        data=images.name,
        images=len(images.paths),
        megapixels=images.megapixels,
        skipped=images.skipped,
        batch=batch,
        decode=summarize(columns[:, 0]),
        resize=summarize(columns[:, 1]),
        run=summarize(columns[:, 2]),
        sum=summarize(columns.sum(axis=1)),
        whole=summarize(np.array(wholes) / 1e6),
        run_alone=summarize(np.array(alone) / 1e6),
    )


class Pipeline:
    """What stands between files and outputs, as `predict` has it."""

    def __init__(self, session: Session, preprocess: Preprocess) -> None:
        self._session, self._preprocess = session, preprocess
        self._input = session.inputs[0].name

    def warm_up(self, files: Sequence[Path]) -> Feed:
        """Run it untimed, twice; returns the input of the run."""
        self.whole(files)
        return self.parts(files)[1]

    def whole(self, files: Sequence[Path]) -> int:
        """Nanoseconds from files to outputs."""
        start = perf_counter_ns()
        images = [decode(str(file), self._preprocess.exif) for file in files]
        self._session.run({self._input: self._pixels(images)})
        return perf_counter_ns() - start

    def parts(self, files: Sequence[Path]) -> tuple[Parts, Feed]:
        """The same, each part for itself; and the input of the run."""
        start = perf_counter_ns()
        images = [decode(str(file), self._preprocess.exif) for file in files]
        decoded = perf_counter_ns()
        feed = {self._input: self._pixels(images)}
        resized = perf_counter_ns()
        self._session.run(feed)
        end = perf_counter_ns()
        return Parts(decoded - start, resized - decoded, end - resized), feed

    def alone(self, feed: Feed) -> int:
        """Nanoseconds of a run behind another."""
        self._session.run(feed)
        start = perf_counter_ns()
        self._session.run(feed)
        return perf_counter_ns() - start

    def _pixels(self, images: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """(n, H, W, 3) as the model takes them."""
        return np.stack([fit(image, self._preprocess) for image in images])


def _groups(paths: Sequence[Path], batch: int) -> Iterator[tuple[Path, ...]]:
    """`batch` files at a time, over and over."""
    endless = cycle(paths)
    while True:
        yield tuple(islice(endless, batch))

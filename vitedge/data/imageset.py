"""A stream of uint8 batches of the model's input size, decoded ahead of whoever consumes them."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import SharedError
from vitedge.core.machine import usable_cores
from vitedge.data.decode import Skip
from vitedge.data.placement import Placement

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Objects:
    """What is on one image, in pixels of the photograph."""

    boxes: NDArray[np.float32]
    """(g, 4) left, top, right, bottom."""
    classes: NDArray[np.int64]
    """(g,) the model's class indices."""
    areas: NDArray[np.float32]
    """(g,) pixels, by which an object is small, medium or large."""
    crowds: NDArray[np.bool_]
    """(g,) whether a box is around many of a class: detections inside it count for nothing."""
    placement: Placement
    """Where the photograph lies in the model's input."""


Label = NDArray[np.int16] | int | Objects
Sample = tuple[NDArray[np.uint8], Label]
"""One image (H, W, 3) RGB, and its class index, its mask (H, W) of class indices, or its objects.
"""
Listing = Callable[[], Iterable[str]]
"""What a set holds, a line an image or file."""
_Item = tuple[NDArray[np.uint8], Label, str]
"""The same, and the image's digest."""


@dataclass(frozen=True)
class Batch:
    """Some images, ready for a model whose preprocessing is inside its graph."""

    images: NDArray[np.uint8]
    """(n, H, W, 3), RGB, resized and cropped."""
    labels: NDArray[np.int64] | NDArray[np.int16] | NDArray[np.object_]
    """Class indices, (n,) or, of masks, (n, H, W); -1 where unlabelled. Or (n,) of `Objects`."""
    digests: tuple[str, ...]
    """First 16 hex digits of the SHA-256 of each image's (H, W, 3) bytes."""


def unusable(name: str, skipped: Mapping[str, int]) -> SharedError:
    """That not one image of a set can be read, for these reasons."""
    reasons = ", ".join(f"{n} {why}" for why, n in Counter(skipped).most_common())
    return SharedError(
        f"none of the {sum(skipped.values())} images of '{name}' is usable: {reasons}",
        fix="give 8-bit RGB or greyscale PNG, JPEG or WebP files, and PNGs for masks",
    )


class ImageSet:
    """A finite, indexable set of images, decoded only when iterated over.

    `load(i)` returns image i and its label, or raises Skip; `decodes` says that it takes long
    enough to be worth a thread. `strata` is the class of each image, known without decoding it.
    """

    def __init__(
        self,
        name: str,
        size: int,
        load: Callable[[int], Sample],
        *,
        decodes: bool,
        strata: Sequence[int] = (),
        paths: Sequence[str] = (),
        listing: Listing = tuple,
    ) -> None:
        self.name = name
        self.strata = strata if any(index != UNLABELLED for index in strata) else ()
        """Each image's class in the set's own numbering, -1 without one; empty if none has one."""
        self.skipped: Counter[str] = Counter()
        """Reason -> images skipped for it, by the iteration that began last."""
        self.unusable: dict[int, str] = {}
        """Which images these are, and why."""
        self.paths = paths
        """Each image's file; empty where they are in memory."""
        self._size = size
        self._load = load
        self._listing = listing
        self._threads = min(4, usable_cores()) if decodes else 0

    def __len__(self) -> int:
        """How many images there are, those that will turn out to be skipped included."""
        return self._size

    def batches(self, batch_size: int, *, order: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield every image once, or those that `order` lists; the last batch may be shorter.

        Raises InputError when not one image was usable.
        """
        indices = range(len(self)) if order is None else order
        lookahead = batch_size + 2 * self._threads  # the next batch decodes during this inference
        return self._batched(self._usable([indices], lookahead), batch_size)

    def aligned(self, batch_size: int, span: range) -> Iterator[Batch]:
        """Yield the usable images of `span`, cut where multiples of `batch_size` are.

        So that an image has the same company however a set is cut into spans; where images are
        skipped a batch is shorter. Raises InputError when not one image of the whole set is usable.
        """
        numbered = self._numbered([span], batch_size + 2 * self._threads)
        for _, part in groupby(numbered, lambda image: image[0] // batch_size):
            yield from self._batched((item for _, item in part), batch_size)
        if len(span) == len(self) == len(self.unusable) > 0:
            raise unusable(self.name, self.skipped)

    def digest(self) -> str:
        """SHA-256 of what the set says it holds; nothing is decoded for it."""
        content = hashlib.sha256(f"{len(self)} images\n".encode())
        for line in self._listing():
            content.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        return content.hexdigest()

    def drawn(self, seed: int) -> list[int]:
        """The index of every image, in an order that is random and the same on every machine."""
        # RandomState because NumPy keeps its streams frozen; those of default_rng may change.
        return list(np.random.RandomState(seed).permutation(len(self)).tolist())

    def sample(self, count: int, seed: int) -> Iterator[Batch]:
        """Yield `count` single-image batches, without replacement; fewer if the set runs out.

        A skipped image is replaced by the next of the draw. Raises InputError when not one image
        was usable.
        """
        return self.take(count, [self.drawn(seed)])

    def take(self, count: int, rounds: Iterable[Sequence[int]]) -> Iterator[Batch]:
        """Yield the first `count` usable images that `rounds` list, as single-image batches.

        The next round is asked for when `unusable` has all of the one before. Raises InputError
        when not one image was usable.
        """
        lookahead = min(count, 2 * self._threads)
        return self._batched(islice(self._usable(rounds, lookahead), count), 1)

    def _batched(self, items: Iterator[_Item], batch_size: int) -> Iterator[Batch]:
        while chunk := list(islice(items, batch_size)):
            images, labels, digests = zip(*chunk, strict=True)
            yield Batch(np.stack(images), np.array(labels), digests)

    def _usable(self, rounds: Iterable[Sequence[int]], lookahead: int) -> Iterator[_Item]:
        usable = False
        for _, item in self._numbered(rounds, lookahead):
            usable = True
            yield item
        if not usable and self.unusable:
            raise unusable(self.name, self.skipped)

    def _numbered(
        self, rounds: Iterable[Sequence[int]], lookahead: int
    ) -> Iterator[tuple[int, _Item]]:
        """The usable images, by their places."""
        self.skipped, self.unusable = Counter(), {}
        for indices in rounds:
            for index, result in zip(indices, self._results(indices, lookahead), strict=True):
                if isinstance(result, Skip):
                    self.skipped[str(result)] += 1
                    self.unusable[index] = str(result)
                else:
                    yield index, result

    def _results(self, indices: Sequence[int], lookahead: int) -> Iterator[_Item | Skip]:
        """Attempt the images in order, at most `lookahead` of them ahead of the consumer."""
        if not self._threads:
            yield from map(self._attempt, indices)
            return
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="vitedge-decode")
        try:
            waiting: deque[Future[_Item | Skip]] = deque()
            for index in indices:
                waiting.append(pool.submit(self._attempt, index))
                if len(waiting) > lookahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _attempt(self, index: int) -> _Item | Skip:
        try:
            image, label = self._load(index)
        except Skip as skip:
            return skip
        return image, label, hashlib.sha256(image.data).hexdigest()[:16]

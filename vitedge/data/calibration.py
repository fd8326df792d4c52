"""Which images of a set a calibration recipe chooses: the same ones at every pass and on every
machine, without decoding more of a large set than it must.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.errors import InputError, SharedError
from vitedge.core.numerics import fill_batch
from vitedge.core.progress import Steps
from vitedge.core.spec import Calibration
from vitedge.data.imageset import ImageSet

POOL_IMAGES = 2048
"""`diverse` chooses among at most this many images, or POOL_FACTOR times as many as it wants."""
POOL_FACTOR = 4
CELLS = 8
"""Rows and columns of the thumbnails that `diverse` compares."""


class CalibrationImages:
    """The images that `recipe` chooses from a set, decoded anew at every pass over them."""

    def __init__(self, images: ImageSet, recipe: Calibration, steps: Steps) -> None:
        """Raises InputError where `stratified` has no classes to go by."""
        if recipe.selection == "stratified" and not images.strata:
            raise InputError(
                f"the images of '{images.name}' have no labels, and calibration recipe "
                f"'{recipe.name}' takes equal numbers of each class",
                fix="give one folder per class or an .npz with 'labels', or a recipe with "
                'selection = "random" or "diverse"',
            )
        self.images, self.recipe = images, recipe
        self._steps = steps
        self._digests: tuple[str, ...] = ()
        self._skipped: Counter[str] = Counter()
        self._skipped_in_pool: Counter[str] = Counter()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield each image, (1, H, W, 3).

        Raises InputError at the end where their statistics mean nothing: all blank, or all alike.
        """
        digests: list[str] = []
        blank = True
        for batch in self.images.take(self.recipe.num_samples, self._rounds()):
            digests.extend(batch.digests)
            blank = blank and bool((batch.images == batch.images[:, :1, :1]).all())
            yield batch.images
        self._digests = tuple(digests)
        self._skipped = self.images.skipped + self._skipped_in_pool
        if blank:
            raise SharedError(
                f"every calibration image of '{self.images.name}' is blank: one colour all over",
                fix="give a few hundred images that look like the real ones",
            )
        if len(digests) > 1 and len(set(digests)) == 1:
            raise SharedError(
                f"the {len(digests)} calibration images of '{self.images.name}' are all the same",
                fix="give a few hundred different images that look like the real ones",
            )

    def restore(self, digests: Sequence[str], skipped: Mapping[str, int]) -> None:
        """Take an earlier pass over the same images for one of this process."""
        self._digests, self._skipped = tuple(digests), Counter(skipped)

    def record(self) -> manifest.CalibrationSet:
        """What the last complete pass held."""
        return manifest.CalibrationSet(
            recipe=self.recipe,
            source=self.images.name,
            images=len(self._digests),
            digest=hashlib.sha256("".join(self._digests).encode()).hexdigest(),
            image_digests=self._digests,
            skipped=dict(self._skipped),
        )

    def _rounds(self) -> Iterable[Sequence[int]]:
        """Images to take, in order; a further round makes up for the unusable ones of the last."""
        recipe = self.recipe
        if recipe.selection == "first":
            return [range(len(self.images))]
        if recipe.selection == "stratified":
            return _balanced(self.images, recipe.num_samples, recipe.seed)
        if recipe.selection == "diverse":
            return [self._diverse]
        return [self.images.drawn(recipe.seed)]

    @cached_property
    def _diverse(self) -> list[int]:
        """The usable images that look least alike, of a pool drawn at random."""
        recipe, images = self.recipe, self.images
        size = min(len(images), max(POOL_IMAGES, POOL_FACTOR * recipe.num_samples))
        features = []
        for batch in images.sample(size, recipe.seed):
            features.append(thumbnail(batch.images[0]))
            self._steps("choosing calibration images", len(features), size)
        self._skipped_in_pool = images.skipped
        usable = [i for i in images.drawn(recipe.seed) if i not in images.unusable]
        return [usable[i] for i in farthest_points(np.stack(features), recipe.num_samples)]


def batched(images: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Images (1, H, W, 3) as batches (`size`, H, W, 3), the last filled up with its last image."""
    stream = iter(images)
    while chunk := list(islice(stream, size)):
        yield fill_batch(np.concatenate(chunk), size)


def _balanced(images: ImageSet, count: int, seed: int) -> Iterator[list[int]]:
    """Rounds of as many images of each class as of any other, until its images run out.

    Those without a class count as one more. An unusable image is replaced by one of its class.
    """
    classes: dict[int, list[int]] = {}
    for index in images.drawn(seed):
        classes.setdefault(images.strata[index], []).append(index)
    chosen: set[int] = set()
    while True:
        usable = ([i for i in members if i not in images.unusable] for members in classes.values())
        turns = zip_longest(*usable)
        in_turn = (i for turn in turns for i in turn if i is not None)
        indices = [i for i in islice(in_turn, count) if i not in chosen]
        if not indices:
            return
        chosen.update(indices)
        yield indices


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """What an (H, W, 3) image looks like, (384,): mean and contrast of 8 × 8 cells, 0..255.

    Contrast is the standard deviation. Integers, so that distances are the same on every machine.
    """
    values = image.astype(np.int64)
    area, total, squares = (_cell_sums(v) for v in (np.ones_like(values), values, values**2))
    variance = (area * squares - total**2) / area**2
    features = np.concatenate([total / area, np.sqrt(variance)], axis=None)
    return np.asarray(np.rint(features), np.int32)


def _cell_sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """(H, W, 3) to (8, 8, 3); the pixels of an image smaller than that are in several cells."""
    for axis in (0, 1):
        starts = np.arange(CELLS) * values.shape[axis] // CELLS
        values = np.add.reduceat(values, starts, axis=axis)
    return values


def farthest_points(features: NDArray[np.int32], count: int) -> list[int]:
    """Up to `count` rows of `features` (n, d): the first, then ever the one farthest from them.

    Greedy k-center: no row is over twice as far from the nearest one chosen as with the best choice
    (Gonzalez 1985).
    """
    chosen = [0]
    distance = np.full(len(features), np.iinfo(np.int64).max)
    while len(chosen) < min(count, len(features)):
        squared = np.square(features - features[chosen[-1]]).sum(axis=1, dtype=np.int64)
        distance = np.minimum(distance, squared)
        distance[chosen[-1]] = -1
        chosen.append(int(distance.argmax()))
    return chosen

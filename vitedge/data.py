"""Images, wherever they are, become uint8 batches of the model's input size, streamed.

An image that cannot be decoded to exactly what its author meant is skipped and counted, or
refused: never a wrong tensor. NumPy and Pillow only, so that a device without torch can use it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.decode import Skip, decode, fit, resized_size
from vitedge.errors import InputError, nearest
from vitedge.host import usable_cores
from vitedge.spec import Preprocess

Role = Literal["calibration", "evaluation"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
NUM_RANDOM = 1000
"""Images in the set `random`."""
UNLABELLED = -1

_DIGITS = Path(__file__).parent / "models" / "digits.npz"
_ACCEPTED = "an image folder (class_name/*.png|jpg|jpeg|webp) or an .npz with 'images' and 'labels'"


@dataclass(frozen=True)
class Batch:
    """Some images, ready for a model whose preprocessing is inside its graph."""

    images: NDArray[np.uint8]
    """(n, H, W, 3), RGB, resized and cropped."""
    labels: NDArray[np.int64]
    """(n,), class indices; -1 where unlabelled."""
    digests: tuple[str, ...]
    """First 16 hex digits of the SHA-256 of each image's (H, W, 3) bytes."""


class ImageSet:
    """A finite, indexable set of images, decoded only when iterated over.

    `load(i)` returns image i, (H, W, 3) uint8 RGB, or raises Skip; `decodes` says that it takes
    long enough to be worth a thread.
    """

    def __init__(
        self,
        name: str,
        labels: NDArray[np.int64],
        load: Callable[[int], NDArray[np.uint8]],
        *,
        decodes: bool,
    ) -> None:
        self.name = name
        self.labelled = bool((labels != UNLABELLED).any())
        self.skipped: Counter[str] = Counter()
        """Reason -> images skipped for it, by the iteration that began last."""
        self._labels = labels
        self._load = load
        self._threads = min(4, usable_cores()) if decodes else 0

    def __len__(self) -> int:
        """How many images there are, those that will turn out to be skipped included."""
        return len(self._labels)

    def batches(self, batch_size: int, *, order: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield every image once, or those that `order` lists; the last batch may be shorter.

        Raises InputError when not one image was usable.
        """
        indices = range(len(self)) if order is None else order
        lookahead = batch_size + 2 * self._threads  # the next batch decodes during this inference
        return self._batched(self._usable(indices, lookahead), batch_size)

    def sample(self, count: int, seed: int) -> Iterator[Batch]:
        """Yield `count` single-image batches, without replacement; fewer if the set runs out.

        A skipped image is replaced by the next of the draw. The same seed draws the same images on
        every machine. Raises InputError when not one image was usable.
        """
        # RandomState because NumPy keeps its streams frozen; those of default_rng may change.
        drawn = np.random.RandomState(seed).permutation(len(self)).tolist()
        lookahead = min(count, 2 * self._threads)
        return self._batched(islice(self._usable(drawn, lookahead), count), 1)

    def _batched(self, items: Iterator[_Item], batch_size: int) -> Iterator[Batch]:
        while chunk := list(islice(items, batch_size)):
            yield Batch(
                images=np.stack([item.image for item in chunk]),
                labels=self._labels[[item.index for item in chunk]],
                digests=tuple(item.digest for item in chunk),
            )

    def _usable(self, indices: Sequence[int], lookahead: int) -> Iterator[_Item]:
        self.skipped = Counter()
        good = 0
        for result in self._results(indices, lookahead):
            if isinstance(result, Skip):
                self.skipped[result.reason] += 1
            else:
                good += 1
                yield result
        if not good and len(indices):
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.skipped.most_common())
            raise InputError(
                f"none of the {len(indices)} images of '{self.name}' is usable: {reasons}",
                fix="give 8-bit RGB or greyscale PNG, JPEG or WebP files",
            )

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
            image = self._load(index)
        except Skip as skip:
            return skip
        return _Item(index, image, hashlib.sha256(image.data).hexdigest()[:16])


@dataclass(frozen=True)
class _Item:
    index: int
    image: NDArray[np.uint8]
    digest: str


def open_images(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    """Open `digits`, `random`, an .npz or an image folder, without decoding anything yet.

    `labels` are the model's class names, in the order of its logits. Raises InputError when there
    is nothing usable at `path`, or, for evaluation, when its labels are not the model's.
    """
    size = max(preprocess.height, preprocess.width)
    if preprocess.resize == "shorter_side" and 0 < preprocess.resize_px < size:
        raise InputError(
            f"preprocessing resizes to {preprocess.resize_px} px, then crops "
            f"{preprocess.height}×{preprocess.width}: the crop is larger than the image",
            fix=f"set resize_px to 0 or to at least {size}",
        )
    if path == "digits":
        return _open_digits(role, preprocess, labels)
    if path == "random":
        return _open_random(role, preprocess)
    location = Path(path)
    if location.is_dir():
        return _open_folder(path, role, preprocess, labels)
    if location.is_file() and location.suffix.lower() == ".npz":
        return _open_npz(path, role, preprocess, labels)
    if location.exists():
        raise InputError(f"'{path}' is not a data set", fix=f"give {_ACCEPTED}")
    known = ("digits", "random") if role == "calibration" else ("digits",)
    raise InputError(f"there is no '{path}'", fix=f"{nearest(path, known)}, or give {_ACCEPTED}")


def _open_digits(role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    images, classes, held_out = _digits()
    if role == "evaluation" and labels and len(labels) != 10:
        raise InputError(
            f"'digits' has 10 classes and the model has {len(labels)}",
            fix="give images of the model's own classes",
        )
    part = held_out if role == "evaluation" else ~held_out
    return _in_memory("digits", images[part], classes[part], preprocess)


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Images (1797, 32, 32, 3), labels and whether held out of training.

    Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), scikit-learn's copy.
    """
    with np.load(_DIGITS, allow_pickle=False) as file:
        small, labels, held_out = file["images"], file["labels"], file["held_out"]
    grey = np.round(small * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    large = [Image.fromarray(g).resize((32, 32), Image.Resampling.BICUBIC) for g in grey]
    return (
        np.stack([np.asarray(i.convert("RGB")) for i in large]),
        labels.astype(np.int64),
        held_out,
    )


def _open_random(role: Role, preprocess: Preprocess) -> ImageSet:
    if role == "evaluation":
        raise InputError(
            "'random' is noise: no accuracy can be measured on it",
            fix="give labelled images, or 'digits' with the embedded reference model",
        )
    shape = (preprocess.height, preprocess.width, 3)

    def noise(index: int) -> NDArray[np.uint8]:
        raw = np.random.RandomState(index).bytes(shape[0] * shape[1] * shape[2])
        return np.frombuffer(raw, np.uint8).reshape(shape)

    return ImageSet("random", np.full(NUM_RANDOM, UNLABELLED, np.int64), noise, decodes=False)


def _open_npz(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    wanted = "save it as numpy.savez(path, images=..., labels=...)"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("images", "labels") if key in file}
    except MemoryError as error:
        raise InputError(f"'{path}' does not fit in memory", fix="give an image folder") from error
    except Exception as error:  # zip, zlib and npy readers raise anything
        raise InputError(f"cannot read '{path}': {error}", fix=wanted) from error

    if "images" not in arrays:
        raise InputError(f"'{path}' has no array 'images'", fix=wanted)
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        hint = "transpose it from NCHW, " if images.ndim == 4 and images.shape[1] == 3 else ""
        raise InputError(
            f"'images' of '{path}' is {images.dtype} {images.shape}, not uint8 (n, H, W, 3)",
            fix=f"{hint}save RGB images of 0..255, not normalised, channels last",
        )

    if "labels" not in arrays and role == "calibration":
        classes = np.full(len(images), UNLABELLED)
    elif "labels" not in arrays:
        raise InputError(f"'{path}' has no array 'labels'", fix=wanted)
    else:
        classes = arrays["labels"]
    if classes.dtype.kind not in "iu" or classes.shape != (len(images),):
        raise InputError(
            f"'labels' of '{path}' is {classes.dtype} {classes.shape}, "
            f"not integer ({len(images)},)",
            fix="save one class index for every image",
        )
    classes = classes.astype(np.int64)
    outside = (classes < 0) | (classes >= (len(labels) or np.inf))
    if role == "evaluation" and outside.any():
        raise InputError(
            f"'labels' of '{path}' has {classes[outside][0]}, "
            f"and the model's classes are 0 to {len(labels) - 1 if labels else '…'}",
            fix="give class indices in the order of the model's outputs",
        )
    classes[outside] = UNLABELLED  # calibration needs no labels
    return _in_memory(path, images, classes, preprocess)


def _in_memory(
    name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], preprocess: Preprocess
) -> ImageSet:
    height, width = images.shape[1:3]
    size = (preprocess.width, preprocess.height)
    if (width, height) == size == resized_size(width, height, preprocess):
        return ImageSet(name, labels, np.ascontiguousarray(images).__getitem__, decodes=False)

    def resized(index: int) -> NDArray[np.uint8]:
        return fit(Image.fromarray(images[index]), preprocess)

    return ImageSet(name, labels, resized, decodes=True)


def _open_folder(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    """An ImageFolder; names that begin with a dot are not looked at."""
    folders, files = _listing(path)
    if role == "evaluation" and files and not folders:
        raise InputError(
            f"'{path}' has no class folders, so its images have no labels",
            fix="sort them into one folder per class: class_name/image.png",
        )
    index_of = _class_indices(path, folders, labels, role)
    classes = [UNLABELLED] * len(files)
    for folder in folders:
        found = _images_below(os.path.join(path, folder), frozenset({os.path.realpath(path)}))
        files += found
        classes += [index_of.get(folder, UNLABELLED)] * len(found)
    if not files:
        raise InputError(f"there are no images in '{path}'", fix=f"give {_ACCEPTED}")

    def decoded(index: int) -> NDArray[np.uint8]:
        if role == "evaluation" and classes[index] == UNLABELLED:
            raise Skip("outside the class folders")
        return fit(decode(files[index]), preprocess)

    return ImageSet(path, np.array(classes, np.int64), decoded, decodes=True)


def _listing(folder: str) -> tuple[list[str], list[str]]:
    """Names of the folders and paths of the images in `folder`, both sorted."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if e.name[0] != "."), key=lambda e: e.name)
    except OSError as error:
        raise InputError(
            f"cannot read the folder '{folder}': {error.strerror}", fix="check its permissions"
        ) from error
    folders = [e.name for e in entries if e.is_dir()]
    files = [e.path for e in entries if e.name.lower().endswith(SUFFIXES) and not e.is_dir()]
    return folders, files


def _images_below(folder: str, above: frozenset[str]) -> list[str]:
    """Paths of all images in `folder`, links followed unless to one of the folders `above`."""
    real = os.path.realpath(folder)
    if real in above:
        return []
    folders, files = _listing(folder)
    for name in folders:
        files += _images_below(os.path.join(folder, name), above | {real})
    return files


def _class_indices(
    path: str, folders: Sequence[str], labels: Sequence[str], role: Role
) -> dict[str, int]:
    """Class folder -> index of the model's class; for calibration, empty where none fits."""
    count, index_of = Counter(labels), {name: index for index, name in enumerate(labels)}
    unknown = [name for name in folders if count[name] != 1]  # absent, or not one class alone
    if not unknown:
        return {name: index_of[name] for name in folders}
    numbered = list(labels) == [str(i) for i in range(len(labels))]  # the model has no real names
    if not labels or (numbered and len(folders) == len(labels)):
        return {name: i for i, name in enumerate(folders)}
    if role == "calibration":
        return {}
    if numbered:
        raise InputError(
            f"'{path}' has {len(folders)} class folders and the model has {len(labels)} classes",
            fix="keep one folder for every class, or name the folders by class index",
        )
    raise InputError(
        f"{len(unknown)} class folders of '{path}' do not name a class of the model: "
        f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}",
        fix=f"name folders as the model's labels.txt does ({', '.join(labels[:3])}, …)",
    )

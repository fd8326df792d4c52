"""An artifact that predicts: a verified bundle with its session kept open between calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import repeat
from typing import Any, TypeAlias, overload

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.bundle import Bundle
from vitedge.core.detections import Detections, detections
from vitedge.core.errors import InputError
from vitedge.core.runtime import Session
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, as_rgb, check_images, decode
from vitedge.data.geometry import fit
from vitedge.data.placement import Placement, placement
from vitedge.measure.accuracy.metrics import class_map
from vitedge.measure.accuracy.validation import run_all
from vitedge.runtimes import open_session

OneImage: TypeAlias = "str | os.PathLike[str] | Image.Image"


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """One class of an image, and how sure the artifact is of it."""

    label: str
    index: int
    score: float
    """Softmax of the logits, 0-1."""


class DetectedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object on an image."""

    label: str
    index: int
    """Of its class."""
    score: float
    """How sure the artifact is of it, 0-1."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, pixels of the image as it is shown upright."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact's main output makes of one image; what is not of its task is empty."""

    top: tuple[Class, ...] = ()
    """Classification: the likeliest classes, best first."""
    mask: NDArray[np.int32] | None = None
    """Segmentation: (H, W) class indices, where the model's input has its pixels."""
    maps: NDArray[np.float32] | None = None
    """Dense: (C, h, w), or (h, w) as the model gives them."""
    objects: tuple[DetectedObject, ...] | None = None
    """Detection: the surest first."""
    features: NDArray[np.float32] | None = None
    """Features: (D,), or (N, C) and (C, h, w) as the model gives them."""


class OpenBundle(Bundle):
    """A bundle that predicts.

    The first prediction loads it on its runtime, and `close`, the end of a `with` block or of the
    object lets go of it.
    """

    def __enter__(self) -> OpenBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the runtime; the next prediction loads it again."""
        vars(self).pop("_session", None)
        self._stack.close()

    @overload
    def predict(self, image: OneImage, *, top: int = 5, min_score: float = 0.5) -> Prediction: ...
    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], *, top: int = 5, min_score: float = 0.5
    ) -> list[Prediction]: ...
    @overload
    def predict(self, image: NDArray[np.uint8], *, top: int = 5, min_score: float = 0.5) -> Any: ...
    def predict(
        self, image: Any, *, top: int = 5, min_score: float = 0.5
    ) -> Prediction | list[Prediction]:
        """Preprocess as the manifest says, and run: no torch, no data set.

        Args:
            image: A file, a Pillow image or (H, W, 3) uint8 RGB: one prediction. A list of these,
                or (N, H, W, 3): a list of them.
            top: How many classes, of a classifier.
            min_score: Least score of an object, of a detector.

        Raises:
            InputError: an image that cannot be used, and why.
            UnavailableError: this machine lacks what the artifact was built for.
        """
        several = isinstance(image, (list, tuple)) or getattr(image, "ndim", 3) == 4
        images = image if several else [image]
        if not len(images):
            return []
        spec = self.manifest.preprocessing.host
        upright = [_upright(image, spec) for image in images]
        pixels = np.stack([_fitted(*pair, spec) for pair in zip(upright, images, strict=True)])
        outputs = run_all(self._session, pixels)
        if rule := self.manifest.model.detection:
            places = [placement(image.size, spec) for image in upright]
            found = map(detections, *outputs[:2], repeat(rule))
            predictions = [
                self._objects(of_image, place, min_score)
                for of_image, place in zip(found, places, strict=True)
            ]
        else:
            predictions = [self._prediction(output, top) for output in outputs[0]]
        return predictions if several else predictions[0]

    @cached_property
    def _stack(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _session(self) -> Session:
        return self._stack.enter_context(open_session(self))

    def _objects(self, found: Detections, place: Placement, min_score: float) -> Prediction:
        """Those that are sure enough."""
        labels, boxes = self.labels(), place.in_pixels(found.boxes).tolist()
        rows = zip(found.classes.tolist(), found.scores.tolist(), boxes, strict=True)
        return Prediction(
            objects=tuple(
                DetectedObject(label=labels[index], index=index, score=score, box=tuple(box))
                for index, score, box in rows
                if score >= min_score
            )
        )

    def _prediction(self, output: NDArray[np.float32], top: int) -> Prediction:
        """Of one image's `output`: (classes,), (classes, h, w), (C, h, w), (D,), …"""
        task, spec = self.manifest.model.task, self.manifest.preprocessing.host
        if task == "features":
            return Prediction(features=output)
        if task == "dense":
            return Prediction(maps=output)
        if task == "segmentation":
            return Prediction(mask=class_map(output, (spec.height, spec.width)))
        powers = np.exp(output.astype(np.float64) - output.max())
        scores, labels = powers / powers.sum(), self.labels()
        best = np.argsort(-scores, kind="stable")[:top].tolist()
        return Prediction(
            top=tuple(Class(label=labels[i], index=i, score=float(scores[i])) for i in best)
        )


def _upright(image: OneImage | NDArray[np.uint8], preprocess: Preprocess) -> Image.Image:
    """The photograph in RGB. Raises InputError."""
    if isinstance(image, np.ndarray):
        check_images(image[None], "the image")
        return Image.fromarray(image)
    with _usable(image):
        if isinstance(image, Image.Image):
            return as_rgb(image.copy(), preprocess.exif)
        if not os.path.exists(image):
            raise InputError(f"there is no image '{image}'", fix="check the path")
        return decode(os.fspath(image), preprocess.exif)


def _fitted(upright: Image.Image, image: object, preprocess: Preprocess) -> NDArray[np.uint8]:
    """(H, W, 3) as the model takes it. Raises InputError."""
    with _usable(image):
        return fit(upright, preprocess)


@contextmanager
def _usable(image: object) -> Iterator[None]:
    """An InputError, naming the image, where it is skipped."""
    try:
        yield
    except Skip as skip:
        raise InputError(
            f"'{image}' is not usable: {skip}",
            fix="give 8-bit RGB or greyscale PNG, JPEG or WebP files",
        ) from skip

"""An artifact that predicts: a verified bundle with its session kept open between calls."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cached_property
from typing import Any, TypeAlias, overload

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.runtime import Session
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, as_rgb, check_images, decode
from vitedge.data.geometry import fit
from vitedge.measure.accuracy.metrics import class_map
from vitedge.measure.accuracy.validation import predict_all
from vitedge.runtimes import open_session

OneImage: TypeAlias = "str | os.PathLike[str] | Image.Image"


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """One class of an image, and how sure the artifact is of it."""

    label: str
    index: int
    score: float
    """Softmax of the logits, 0-1."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact's main output makes of one image; what is not of its task is empty."""

    top: tuple[Class, ...] = ()
    """Classification: the likeliest classes, best first."""
    mask: NDArray[np.int32] | None = None
    """Segmentation: (H, W) class indices, where the model's input has its pixels."""
    maps: NDArray[np.float32] | None = None
    """Dense: (C, h, w), or (h, w) as the model gives them."""
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
    def predict(self, image: OneImage, *, top: int = 5) -> Prediction: ...
    @overload
    def predict(self, image: list[Any] | tuple[Any, ...], *, top: int = 5) -> list[Prediction]: ...
    @overload
    def predict(self, image: NDArray[np.uint8], *, top: int = 5) -> Any: ...
    def predict(self, image: Any, *, top: int = 5) -> Prediction | list[Prediction]:
        """Preprocess as the manifest says, and run: no torch, no data set.

        Args:
            image: A file, a Pillow image or (H, W, 3) uint8 RGB: one prediction. A list of these,
                or (N, H, W, 3): a list of them.
            top: How many classes, of a classifier.

        Raises:
            InputError: an image that cannot be used, and why.
            UnavailableError: this machine lacks what the artifact was built for.
        """
        several = isinstance(image, (list, tuple)) or getattr(image, "ndim", 3) == 4
        images = image if several else [image]
        if not len(images):
            return []
        spec = self.manifest.preprocessing.host
        pixels = np.stack([_fitted(image, spec) for image in images])
        outputs = predict_all(self._session, pixels)
        predictions = [self._prediction(output, top) for output in outputs]
        return predictions if several else predictions[0]

    @cached_property
    def _stack(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _session(self) -> Session:
        return self._stack.enter_context(open_session(self))

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


def _fitted(image: OneImage | NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """(H, W, 3) as the model takes it. Raises InputError."""
    try:
        if isinstance(image, np.ndarray):
            check_images(image[None], "the image")
            return fit(Image.fromarray(image), preprocess)
        if isinstance(image, Image.Image):
            return fit(as_rgb(image.copy(), preprocess.exif), preprocess)
        if not os.path.exists(image):
            raise InputError(f"there is no image '{image}'", fix="check the path")
        return fit(decode(os.fspath(image), preprocess.exif), preprocess)
    except Skip as skip:
        raise InputError(
            f"'{image}' is not usable: {skip}",
            fix="give 8-bit RGB or greyscale PNG, JPEG or WebP files",
        ) from skip

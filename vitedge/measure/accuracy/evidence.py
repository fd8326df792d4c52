"""evidence.npz: what each image of a validation came to, a few bytes an image.

A gate pairs it, image by image, with that of another artifact; a report shows the worst of it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import files, npz
from vitedge.core.bundle import EVIDENCE, Bundle
from vitedge.core.errors import InputError
from vitedge.core.json_document import parse
from vitedge.core.report import Metric
from vitedge.core.spec import Preprocess

SCHEMA = "vitedge.evidence/1"
Array = NDArray[Any]
_ABOUT = "about"
_ALWAYS = {
    *("height", "width", "resize", "resize_px", "interpolation", "crop_rounding"),
    *("mean", "std", "channels"),
}
"""Of preprocessing: what every manifest has stated."""
_ARRAYS = ("digests", "labels", "artifact", "worst", "thumbnails")
"""Those of every validation, beside FP32's where it was run."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the numbers belong to."""

    schema: str = SCHEMA
    metric: Metric
    data: str
    """The images' name."""
    files: dict[str, str]
    """The artifact's model files, and their SHA-256."""
    preprocessing: str
    """SHA-256 of what the manifest says of it."""


@dataclass(frozen=True, eq=False)
class PerImage:
    """What FP32 and the artifact made of each image, in the order they were seen."""

    digests: NDArray[np.uint64]
    """(n,) first 8 bytes of the SHA-256 of each image's input pixels."""
    labels: NDArray[Any]
    """(n,) class indices; detection: (n, g, 7) objects, as `average_precision.Table` has them; (0,)
    of any other task."""
    artifact: NDArray[Any]
    """What each image adds to the artifact's metric: `top1`: (n,) the class chosen; `miou`:
    (n, 3, classes) pixels in both, predicted, labelled; `map`: (n, k, 6) its detections, in
    pixels; `pixel_error`: (n,) the mean error of its pixels; `knn_agreement`: (n,) the share of
    neighbours kept."""
    fp32: NDArray[Any] | None = None
    """The same of FP32; None where it was not run, or the artifact alone is kept."""
    worst: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(k,) positions of the images on which the two differ most, worst first; k ≤ 24."""
    thumbnails: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0, 3), np.uint8))
    """(k, h, w, 3) of these, RGB; h, w ≤ 64, of detectors 160."""
    frames: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(k, 4) of these, of detectors: `Placement.frame`, from pixels to thumbnails."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One validation."""

    about: About
    per_image: PerImage


def write(bundle: Bundle, metric: Metric, data: str, per_image: PerImage) -> None:
    """Put the evidence into the bundle. Raises InputError where it cannot be written."""
    about = About(
        metric=metric,
        data=data,
        files=bundle.model_files,
        preprocessing=preprocessing_digest(bundle),
    )
    save(bundle.path / EVIDENCE, about, arrays(per_image))


def read(folder: Path) -> Evidence | None:
    """The evidence in `folder`, None where there is none.

    Raises InputError for a file that cannot be read, or of another schema.
    """
    path = folder / EVIDENCE
    if not os.path.lexists(path):
        return None
    fix = "validate the artifact again"
    header, stored = load(path, SCHEMA, fix)
    try:
        about = msgspec.convert(header, About)
        return Evidence(about, per_image(stored, about.metric))
    except (msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error


def preprocessing_digest(bundle: Bundle) -> str:
    """SHA-256 of what the manifest says of preprocessing.

    Settings that manifests did not always have count where they are set: evidence stays valid.
    """
    stated = bundle.manifest.preprocessing
    usual = Preprocess(height=stated.host.height, width=stated.host.width)
    content = msgspec.to_builtins(stated)
    for name in set(content["host"]) - _ALWAYS:
        if getattr(stated.host, name) == getattr(usual, name):
            del content["host"][name]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def arrays(per_image: PerImage) -> dict[str, NDArray[Any]]:
    """Its arrays by name; those that are None left out."""
    return {name: array for name, array in vars(per_image).items() if array is not None}


def per_image(named: Mapping[str, NDArray[Any]], metric: Metric) -> PerImage:
    """The reverse of `arrays`. Raises KeyError where one is missing, ValueError if they differ."""
    whole = {name: named[name] for name in _ARRAYS}
    frames = named.get("frames", np.zeros((0, 4), np.float32))
    return checked(PerImage(fp32=named.get("fp32"), frames=frames, **whole), metric)


def checked(per_image: PerImage, metric: Metric) -> PerImage:
    """`per_image`, where its arrays are of `metric` and of the same images. Raises ValueError."""
    n, shape = per_image.digests.shape, per_image.artifact.shape
    models = [array for array in (per_image.artifact, per_image.fp32) if array is not None]
    whole: list[NDArray[Any]] = [per_image.digests, per_image.worst, per_image.thumbnails]
    whole += [] if metric == "map" else [per_image.labels]
    if any(array.dtype.kind not in "iu" for array in whole):
        raise ValueError("its arrays are not of whole numbers")
    labels = per_image.labels.shape
    if metric == "map":
        k = per_image.worst.shape
        fits = (
            len(labels) == 3
            and (labels[:1], labels[2]) == (n, 7)
            and per_image.labels.dtype.kind == "f"
            and all(array.ndim == 3 and array.shape[2] == 6 for array in models)
            and per_image.frames.shape == (*k, 4)
        )
    else:
        fits = (
            labels in ((n,) if metric == "top1" else (n, (0,)))
            and (shape[1:2] == (3,) and len(shape) == 3 if metric == "miou" else len(shape) == 1)
            and len({array.shape for array in models}) == 1
        )
    fits = (
        fits
        and len(n) == 1
        and per_image.thumbnails.shape[3:] == (3,)
        and all(array.shape[:1] == n and array.dtype.kind in "iuf" for array in models)
        and per_image.worst.shape == per_image.thumbnails.shape[:1]
        and bool(((per_image.worst >= 0) & (per_image.worst < n[0])).all())
    )
    if not fits:
        raise ValueError("its arrays are not of the same images")
    return per_image


def save(path: Path, header: msgspec.Struct, named: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz of arrays and a JSON header, by one rename. Raises InputError."""
    about = np.frombuffer(msgspec.json.encode(header), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **{_ABOUT: about}, **named)  # type: ignore[arg-type]
    files.replace(path, content.getvalue(), fix="choose a folder you can write to")


def load(path: Path, schema: str, fix: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays that `save` wrote.

    Raises InputError for a file that cannot be read, or of another schema.
    """
    return _load(path, schema, fix, lambda name: True)


def load_header(path: Path, schema: str, fix: str) -> dict[str, Any]:
    """The header alone. Raises InputError likewise."""
    return _load(path, schema, fix, lambda name: name == _ABOUT)[0]


def _load(
    path: Path, schema: str, fix: str, wanted: Callable[[str], bool]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with npz.arrays(path, fix) as stored:
            named = {name: stored[name] for name in stored if wanted(name)}
            header = parse(named.pop(_ABOUT).tobytes(), path, fix)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", fix=fix) from error
    except Exception as error:  # zip, zlib and npy readers raise anything
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error
    stored_schema = header.get("schema") if isinstance(header, dict) else None
    if stored_schema != schema:
        raise InputError(f"{path} has schema {stored_schema!r}, not '{schema}'", fix=fix)
    return header, named

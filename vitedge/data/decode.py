"""Image files and arrays into the pixels their author meant, or a reason why not."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vitedge.core import npz
from vitedge.core.errors import InputError
from vitedge.core.spec import Exif

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")

FOLDERS = 50_000
"""In a data set, at most."""
MAX_PIXELS = 64_000_000
"""A larger image is skipped, before it is decoded and before it is resized."""


class Skip(Exception):
    """This image is not usable, for the reason that it is made with."""


def decode(path: str, exif: Exif) -> Image.Image:
    """Read a file as 8-bit RGB. Raises Skip."""
    if not os.path.isfile(path):  # a dangling link, or something that would block
        raise Skip("not a readable file")
    return _decoded(path, exif)


def decode_bytes(content: bytes, exif: Exif) -> Image.Image:
    """The same of an encoded image in memory. Raises Skip."""
    return _decoded(io.BytesIO(content), exif)


def _decoded(source: str | io.BytesIO, exif: Exif) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            return as_rgb(image, exif)
    except Skip:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Skip("too large") from None
    except PermissionError:
        raise Skip("not a readable file") from None
    except Exception:
        raise Skip("corrupt, truncated or no image") from None


def as_rgb(image: Image.Image, exif: Exif) -> Image.Image:
    """An image of Pillow's as 8-bit RGB, turned, in place, where `exif` says so. Raises Skip."""
    _check_header(image)
    image.load()
    if exif == "apply":
        ImageOps.exif_transpose(image, in_place=True)
    return _opaque_rgb(image)


def _check_header(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Skip("too large")
    # An MPO is a phone's JPEG with a preview or depth map behind the picture, not an animation.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise Skip("animated")
    if image.mode == "CMYK":
        raise Skip("CMYK")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise Skip(f"of pixel format {image.mode}")


def _opaque_rgb(image: Image.Image) -> Image.Image:
    """Drop an alpha channel that hides nothing.

    16 bits a channel are cut to their high byte by Pillow: less than one 8-bit step, and what
    torchvision and timm train on.
    """
    if image.mode == "RGB" and "transparency" in image.info:  # one colour is see-through
        raise Skip("transparent")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise Skip("transparent")
    return image.convert("RGB")


def listing(folder: str) -> tuple[list[str], list[str]]:
    """Names of the folders and paths of the images in `folder`, both sorted; hidden ones left out.

    Raises InputError where it cannot be read.
    """
    try:
        with os.scandir(folder) as scan:
            entries = sorted((e for e in scan if e.name[0] != "."), key=lambda e: e.name)
    except OSError as error:
        raise InputError(
            f"cannot read the folder '{folder}': {error.strerror}", fix="check its permissions"
        ) from error
    within = {e.name for e in entries if os.path.isdir(e.path)}  # False where links go in a circle
    images = (e for e in entries if e.name.lower().endswith(SUFFIXES))
    return sorted(within), [e.path for e in images if e.name not in within]


def folders_below(folder: str, outside: str = "") -> Iterator[str]:
    """`folder` and those in it, links followed, but none twice: links may lead round and round.

    Where one leads to the folder `outside`, it is not followed. Raises InputError where there is
    no end of them.
    """
    seen = {os.path.realpath(outside)} if outside else set[str]()
    pending = [folder]
    while pending:
        path = pending.pop()
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        if len(seen) > FOLDERS:
            raise InputError(
                f"'{folder}' holds more than {FOLDERS:,} folders", fix="is it the right one?"
            )
        yield path
        pending += [os.path.join(path, name) for name in reversed(listing(path)[0])]


def read_images(path: str, target: str) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """The arrays `images`, (n, H, W, 3) uint8, and `target` of an .npz; None where that is absent.

    Raises InputError as `read_arrays` does.
    """
    arrays = read_arrays(path, (target,))
    return arrays["images"], arrays.get(target)


def read_arrays(path: str, targets: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays `images`, (n, H, W, 3) uint8, of an .npz and those of `targets` that are there.

    Read without unpickling, and checked before they are believed.
    Raises InputError for a file that cannot be read, and images of any other kind.
    """
    fix = f"save it as numpy.savez(path, images=..., {', '.join(f'{t}=...' for t in targets)})"
    try:
        with npz.arrays(Path(path), fix) as file:
            arrays = {key: file[key] for key in ("images", *targets) if key in file}
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"'{path}' does not fit in memory", fix="give an image folder") from error
    except Exception as error:  # zip, zlib and npy readers raise anything
        raise InputError(f"cannot read '{path}': {error}", fix=fix) from error

    if "images" not in arrays:
        raise InputError(f"'{path}' has no array 'images'", fix=fix)
    check_images(arrays["images"], f"'images' of '{path}'")
    return arrays


def check_images(images: NDArray[Any], where: str) -> None:
    """Raise InputError, naming `where`, unless `images` are (n, H, W, 3) uint8."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        hint = "transpose it from NCHW, " if images.ndim == 4 and images.shape[1] == 3 else ""
        raise InputError(
            f"{where} is {images.dtype} {images.shape}, not uint8 (n, H, W, 3)",
            fix=f"{hint}save RGB images of 0..255, not normalised, channels last",
        )

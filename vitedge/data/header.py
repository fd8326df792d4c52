"""What an image file says of itself before it is decoded, and what else lies in its folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from vitedge.core.spec import Exif
from vitedge.data.decode import FORMATS, SUFFIXES, folders_below

_ORIENTATION = 0x0112
_MAGIC = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"<": "text or HTML",
    b"{": "text or HTML",
}


@dataclass(frozen=True)
class Header:
    """Of one image file."""

    width: int
    height: int
    """Pixels, as the image is decoded."""
    mode: str
    """Pillow's name of its pixels, e.g. `RGB`; `… of 16 bits` where they have them."""
    orientation: int
    """EXIF's; 1: as it is stored."""


def read(path: str, exif: Exif) -> Header | None:
    """The header of an image file; None where there is none to be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION, 1)
            wide = any("16" in str(tile[3]) for tile in image.tile)
            mode = f"{image.mode} of 16 bits" if wide else image.mode
    except Exception:  # whatever Pillow raises over a file that is none
        return None
    if exif == "apply" and orientation in (5, 6, 7, 8):
        width, height = height, width
    return Header(width, height, mode, orientation)


def content(path: str) -> str:
    """What a file that cannot be decoded holds, where that can be told; else empty."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return "cannot be opened"
    if not start:
        return "0 bytes"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")


def others(folder: str) -> Iterator[str]:
    """Paths below `folder` that are not read as images: hidden ones, and other kinds of files."""
    for below in folders_below(folder):
        with os.scandir(below) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            image = entry.name.lower().endswith(SUFFIXES)
            if entry.name[0] == "." or not (image or os.path.isdir(entry.path)):
                yield entry.path

"""A list of the images of a folder, made once, with a digest each: shards read it, and no folders.

A line is `SHA-256 bytes class path`; of those before, only where they begin is kept in memory.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec

from vitedge.core import files
from vitedge.core.bounded import TEXT_BYTES, open_regular
from vitedge.core.errors import InputError, SharedError
from vitedge.core.json_document import parse
from vitedge.core.spec import Preprocess
from vitedge.data.decode import Skip, folders_below, listing
from vitedge.data.imageset import UNLABELLED, ImageSet
from vitedge.data.records import IMAGE_BYTES, Records, open_records
from vitedge.data.role import Role

SUFFIX = ".images"
SCHEMA = "vitedge.images/1"
_LINE_BYTES = 2**13
_FIX = "list the images again: vitedge check-data FOLDER --listing FILE"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line."""

    schema: str = SCHEMA
    images: int
    classes: tuple[str, ...]
    """Names of the class folders, in the order of the numbers; empty without."""


def write_list(folder: str, path: Path) -> None:
    """List the images of `folder`, as an image folder is read, in `path`: paths as from there.

    Raises InputError where there are none, or a file cannot be read or written.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"`listing={str(path)!r}` does not end in {SUFFIX}", fix="call it so")
    files.check_writable(path, "`listing`")
    if not os.path.isdir(folder):
        raise InputError(f"'{folder}' is no image folder", fix="only these need a list")
    names, images = listing(folder)
    of_class = [(image, UNLABELLED) for image in images]
    for number, name in enumerate(names):
        for below in folders_below(os.path.join(folder, name), outside=folder):
            of_class += [(image, number) for image in listing(below)[1]]
    if not of_class:
        raise InputError(f"there are no images in '{folder}'", fix="is it the right one?")
    start = os.path.dirname(os.path.abspath(path))
    lines = [msgspec.json.encode(Head(images=len(of_class), classes=tuple(names))).decode()]
    for image, number in of_class:
        with open_regular(Path(image)) as file:
            digest, size = hashlib.sha256(), 0
            while part := file.read(2**20):
                digest.update(part)
                size += len(part)
        relative = os.path.relpath(os.path.abspath(image), start)
        if "\n" in relative or len(os.fsencode(relative)) > _LINE_BYTES // 2:
            raise InputError(f"{image!r} cannot be listed", fix="give it a shorter name")
        lines.append(f"{digest.hexdigest()} {size} {number} {relative}")
    files.replace(path, os.fsencode("\n".join(lines) + "\n"), fix="free some space")


def open_list(path: str, role: Role, preprocess: Preprocess, labels: Sequence[str]) -> ImageSet:
    """The images that are listed in `path`, each checked against its digest when it is read.

    Raises InputError for what is no list, or does not fit the model.
    """
    start = os.path.dirname(path)
    content, classes, begins = hashlib.sha256(), array("q"), array("Q")
    with open_regular(Path(path)) as file:
        first = file.readline(TEXT_BYTES)
        head = _head(path, first)
        content.update(first)
        place = len(first)
        while line := file.readline(_LINE_BYTES):
            classes.append(_parts(path, line)[2])
            begins.append(place)
            content.update(line)
            place += len(line)
    most = max(classes, default=UNLABELLED)
    if most >= len(head.classes):
        raise InputError(f"{path} has class {most}, of {len(head.classes)} names", fix=_FIX)
    if len(classes) != head.images:
        raise InputError(f"{path} lists {len(classes):,} images, not {head.images:,}", fix=_FIX)
    digest = content.hexdigest()

    def read(index: int) -> bytes:
        with open_regular(Path(path)) as file:
            file.seek(begins[index])
            sha256, size, _, name = _parts(path, file.readline(_LINE_BYTES))
        image = os.path.join(start, name)
        if size > IMAGE_BYTES:
            raise Skip("too large")
        try:
            with open_regular(Path(image)) as file:
                encoded = file.read(size + 1)
        except InputError:
            encoded = b""
        if hashlib.sha256(encoded).hexdigest() != sha256:
            raise SharedError(f"{image} is not what {path} lists", fix=_FIX)
        return encoded

    records = Records(path, classes, head.classes, read, lambda: digest, "a class folder")
    return open_records(records, role, preprocess, labels)


def _head(path: str, line: bytes) -> Head:
    try:
        head = msgspec.convert(parse(line, Path(path), _FIX), Head)
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=_FIX) from error
    if head.schema != SCHEMA:
        raise InputError(f"{path} has schema {head.schema!r:.100}, not '{SCHEMA}'", fix=_FIX)
    return head


def _parts(path: str, line: bytes) -> tuple[str, int, int, str]:
    """What a line says. Raises InputError."""
    try:
        digest, size, number, name = line[:-1].split(b" ", 3)
        parts = digest.decode("ascii"), int(size), int(number), os.fsdecode(name)
        if not (
            line.endswith(b"\n") and len(digest) == 64 and parts[1] >= 0 and -1 <= parts[2] < 2**31
        ):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{path} has a line that is none of a list: {line!r:.80}", fix=_FIX
        ) from error
    return parts

"""Paths of this machine, and addresses of devices, in what is about to leave it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from vitedge.core.errors import InputError

_ROOTS = (
    *("home", "root", "Users", "tmp", "mnt", "media", "private", "var", "opt", "srv", "Volumes"),
    *("workspace", "scratch"),
)
_PART = rb"[\w.@+ -]{1,120}"
_PATH = re.compile(
    rb"(?<![\w./:])/(?:" + "|".join(_ROOTS).encode() + rb")/" + _PART + rb"(?:/" + _PART + rb")*"
    rb"|ssh://(?!user@host\b)[\w.@:\[\]-]{1,120}|file:///?"
    + _PART
    + rb"|(?<!\w)[A-Za-z]:[\\/]{1,2}(?:Users|home)[\\/]{1,2}"
    + _PART
)
_ANY = re.compile(rb'"(/[^"\0\n]{2,400}|(?:~|[A-Za-z]:)[\\/]{1,2}[^"\0\n]{1,400})"')
"""A text in JSON that may be a path; names of nodes look like one, too, and are nowhere here."""
_TEXT = (".json", ".txt", ".md", ".xml")


def refuse(paths: Iterable[Path]) -> None:
    """Raise InputError where a file names a place on this machine."""
    here = [os.fsencode(place) for place in {Path.home(), Path.cwd()} if len(place.parts) > 1]
    for path in paths:
        content = path.read_bytes()
        for mention in _mentions(content, here, text=path.suffix in _TEXT):
            raise InputError(
                f"{path.name} names a place on this machine or a device, {os.fsdecode(mention)!r}: "
                "it is not uploaded",
                fix="measure or export it again from the folder of the data, by relative paths; "
                "take a device's report out of the bundle",
            )


def _mentions(content: bytes, here: list[bytes], *, text: bool) -> Iterable[bytes]:
    for place in here:
        if re.search(re.escape(place) + rb"(?![\w.-])", content):
            yield place
    for match in _PATH.finditer(content):
        yield match[0]
    if text:
        for match in _ANY.finditer(content):
            if not match[1].startswith(b"/") or os.path.lexists(match[1]):
                yield match[1]

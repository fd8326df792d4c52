"""Which code made a thing: two machines that agree on it compute the same, version for version."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import vitedge
from vitedge.core.machine import versions

PACKAGE = Path(__file__).parents[1]
OUTSIDE = ("cli", "show", "gate", "ship")
"""Rooms that show and judge what was computed, and compute nothing of it."""


@cache
def code_digest() -> str:
    """SHA-256, in hex, over every file of the package that has a part in what is computed."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        place = path.relative_to(PACKAGE)
        if place.parts[0] in OUTSIDE or "__pycache__" in place.parts or not path.is_file():
            continue
        digest.update(place.as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def code_version() -> dict[str, str]:
    """The versions of vitedge, its sources, Python and every runtime here, by name."""
    return {
        "vitedge": vitedge.__version__,
        "vitedge's sources": code_digest()[:12],
        "Python": platform.python_version(),
        **versions(),
    }

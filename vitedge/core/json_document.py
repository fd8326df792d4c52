"""JSON that may come from a stranger: bounded in bytes, values and depth."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from vitedge.core import bounded
from vitedge.core.errors import InputError, error_line

VALUES = 2**21
DEPTH = 64
"""Lists and objects in each other."""


def read_json(path: Path, *, follow: bool = True, fix: str = "save it again") -> Any:
    """The document in the file `path`, as strict JSON. Raises InputError, mended by `fix`."""
    return parse(bounded.read(path, follow=follow), path, fix)


def read_settings(path: Path, fix: str = "save it again") -> dict[str, Any]:
    """The object in a file of another library's, which may hold NaN and Infinity.

    Raises InputError, mended by `fix`.
    """
    content = parse(bounded.read(path), path, fix, strict=False)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object", fix=fix)
    return content


def parse(content: bytes, where: str | os.PathLike[str], fix: str, *, strict: bool = True) -> Any:
    """The document that `content`, which comes from `where`, holds.

    Unless `strict`, NaN and Infinity are numbers. Raises InputError, mended by `fix`.
    """
    try:
        values = content.count(b",") + content.count(b"[") + content.count(b"{")
        if values > VALUES:
            raise ValueError(f"it has more than {VALUES:,} values")
        document = msgspec.json.decode(content) if strict else json.loads(content)
        _check_depth(document)
    except (ValueError, RecursionError) as error:  # msgspec's and unicode's are ValueErrors
        raise InputError(f"{where} cannot be read: {error_line(error)}", fix=fix) from error
    return document


def numbers(document: Any) -> Iterator[float]:
    """Every number in a document."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, (int, float)):
            yield value


def _check_depth(document: Any) -> None:
    """Raise ValueError where lists and objects nest deeper than any reader expects."""
    level = [document]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        level = [value for value in inner if isinstance(value, (dict, list))]
        if not level:
            return
    raise ValueError(f"its lists and objects nest more than {DEPTH} deep")

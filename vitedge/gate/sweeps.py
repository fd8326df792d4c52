"""The folder of a sweep, as the artifacts that it kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from vitedge.core.bundle import MANIFEST
from vitedge.core.errors import InputError
from vitedge.core.json_document import read_json

FILE = "sweep.json"
_AGAIN = "run the sweep again"


class _Row(msgspec.Struct, frozen=True):
    """As much of a trial as says where its artifact lies."""

    artifact: str = ""


class _Sweep(msgspec.Struct, frozen=True):
    rows: tuple[_Row, ...] = ()


def artifacts(sources: Sequence[Path]) -> Iterator[Path]:
    """`sources`, those that are the folder of a sweep replaced by what is kept in it.

    Raises InputError where that is nothing.
    """
    for source in sources:
        if (source / MANIFEST).exists() or not (source / FILE).is_file():
            yield source
            continue
        try:
            rows = msgspec.convert(read_json(source / FILE), _Sweep).rows
        except msgspec.ValidationError as error:
            raise InputError(f"{source / FILE} is of no sweep: {error}", fix=_AGAIN) from error
        kept = [source / row.artifact for row in rows if row.artifact]
        if outside := [
            path for path in kept if not path.resolve().is_relative_to(source.resolve())
        ]:
            raise InputError(f"{source / FILE} names {outside[0]}, outside it", fix=_AGAIN)
        if not kept:
            raise InputError(f"the sweep {source} has kept no artifact", fix=_AGAIN)
        yield from kept

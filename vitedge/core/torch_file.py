"""What a torch checkpoint says of itself, checked before torch reads it: a zip, or pickles.

torch unpickles tensors alone with `weights_only`, and believes every size and string in them.
"""

from __future__ import annotations

import io
import os
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vitedge.core.bounded import open_regular
from vitedge.core.errors import InputError, error_line
from vitedge.core.zip_file import open_zip

MEMBERS = 2**16
PICKLE_BYTES = 8 * 2**20
"""Names, shapes and settings; every opcode of it may make an object."""
OPERATIONS = 2_000_000
"""Of a pickle: a tensor takes 25."""
EXPANSION, EXPANSION_FREE = 8, 64 * 2**20
"""How many times its file's size the members, or its tensors, may be, and bytes beside that."""
WEIGHT = 2**20
"""Values in a tuple, those in it counted wherever they stand: hashing one visits all."""
_ZIP = b"PK\x03\x04"
_CODECS = ("hex", "base64", "base_64", "quopri", "quoted_printable", "uu", "bz2", "zlib", "zip")
"""Those that may be applied to what they give, each time making it larger."""
_PICKLES = 5
"""At the start of a file from before torch 1.6: magic, version, system, content, keys."""


def check(path: Path) -> None:
    """Raises InputError where the checkpoint `path` would be far larger in memory than it is."""
    try:
        with open_regular(path) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if file.read(4) == _ZIP:
                _check_zip(file, size_bytes)
            else:
                file.seek(0)
                start = io.BytesIO(file.read(PICKLE_BYTES + 1))
                for _ in range(_PICKLES):
                    _check_pickle(start)
    except InputError:
        raise
    except Exception as error:  # zip, zlib and pickle readers raise anything
        raise InputError(
            f"{path} cannot be read as tensors only: {error_line(error)}",
            fix="save its state_dict() as safetensors; vitedge never unpickles code",
        ) from error


def _check_zip(file: IO[bytes], size_bytes: int) -> None:
    file.seek(0)
    with open_zip(file) as archive:
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        if len(members) > MEMBERS or declared > EXPANSION * size_bytes + EXPANSION_FREE:
            raise ValueError(
                f"its {len(members)} members are {declared / 2**20:.0f} MiB, of a file of "
                f"{size_bytes / 2**20:.1f}"
            )
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > PICKLE_BYTES:
                    raise ValueError(f"{member.filename!r:.200} is too large for names and shapes")
                _check_pickle(io.BytesIO(archive.read(member)))


def _check_pickle(stream: IO[bytes]) -> None:
    """Raise ValueError where what a pickle makes is larger than it by more than a little."""
    start = stream.tell()
    strings: set[str] = set()
    encodes = False
    for name, argument in _operations(stream):
        if stream.tell() - start > PICKLE_BYTES:
            raise ValueError("its pickle is too large for names and shapes")
        if name == "GLOBAL":
            encodes |= argument == "_codecs encode"
        elif isinstance(argument, str) and len(argument) < 40:
            strings.add(argument.lower().replace("-", "_").removesuffix("_codec"))
    if encodes and strings & set(_CODECS):
        raise ValueError("it encodes bytes in ways that tensors do not need")


def _operations(stream: IO[bytes]) -> Iterator[tuple[str, object]]:
    """Every operation of a pickle, and its argument. Raises ValueError for endless tuples."""
    stack: list[int] = []  # how many values each holds; -1: a mark
    memo: dict[object, int] = {}
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count > OPERATIONS:
            raise ValueError("its pickle is too long for names and shapes")
        name, before = operation.name, operation.stack_before
        yield name, argument
        if name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo.get(argument, 1))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name == "MARK":
            stack.append(-1)
        else:
            weight = 1
            if pickletools.markobject in before:
                while (top := stack.pop()) >= 0:
                    weight += top
            for _ in range(len([kind for kind in before if kind not in _OF_MARKS])):
                weight += max(0, stack.pop())
            is_tuple = name.startswith("TUPLE")
            if weight > WEIGHT and is_tuple:
                raise ValueError("its tuples hold each other over and over")
            stack += [weight if is_tuple else 1] * len(operation.stack_after)


_OF_MARKS = (pickletools.markobject, pickletools.stackslice)

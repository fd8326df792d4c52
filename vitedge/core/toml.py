"""TOML files and tables as settings; an unknown key is an error with the nearest known one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from vitedge.core import bounded
from vitedge.core.errors import InputError, nearest
from vitedge.core.spec import Spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SpecT = TypeVar("SpecT", bound=Spec)
LIMIT_BYTES = 2**20
DEPTH = 64
"""Parts of a dotted key: each makes a table, in a parser whose memory grows with their square."""
_DEEP = re.compile(rf"(?:[\w\"'-]{{1,99}}[ \t]*\.[ \t]*){{{DEPTH}}}")


def load_toml(path: Path, kind: type[SpecT]) -> SpecT:
    """Read a TOML file as `kind`.

    Raises InputError, naming the file and the key, when it is not exactly that.
    """
    return convert(read_toml(path), kind, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Raises InputError where there is no TOML."""
    try:
        text = bounded.read(path, LIMIT_BYTES).decode("utf-8")
        if _DEEP.search(text):
            raise InputError(
                f"{path}: a key of more than {DEPTH} parts", fix="is it the right file?"
            )
        content: dict[str, Any] = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except (ValueError, RecursionError) as error:  # also of a number of many digits
        raise InputError(f"{path} is not valid TOML: {error}") from error
    return content


def convert(data: dict[str, Any], kind: type[SpecT], where: str) -> SpecT:
    """Settings as `kind`. Raises InputError, naming `where` and the key, when they are not that."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}", fix=_key_hint(str(error), kind)) from error


def _key_hint(message: str, kind: type[Spec]) -> str:
    """The nearest known key when `message` complains of an unknown one."""
    unknown = re.search(r"unknown field `(\w+)`(?: - at `\$\.?(.*)`)?", message)
    if not unknown:
        return f"see the fields of {kind.__name__} in {kind.__module__}"
    table: Any = kind
    for key in filter(None, (unknown[2] or "").split(".")):  # nested tables, and arrays of them
        types = {field.name: field.type for field in msgspec.structs.fields(table)}
        name, element, _ = key.partition("[")
        declared = types[name]
        if get_origin(declared) is Annotated:
            declared = get_args(declared)[0]
        table = get_args(declared)[0] if element else declared
    return nearest(unknown[1], (field.name for field in msgspec.structs.fields(table)))

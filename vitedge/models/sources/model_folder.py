"""A folder of somebody's config.json and weights, looked at before a library reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitedge.core.bounded import open_regular, read
from vitedge.core.errors import InputError
from vitedge.core.json_document import read_settings
from vitedge.models.sources.base import cached
from vitedge.models.sources.checkpoints import check_file

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
LAYERS = 1024
_INDEX = ".index.json"


def check(place: str) -> None:
    """Raises InputError where a folder, or the cache of a hub's ID, holds what is not read.

    That is settings out of bounds, weights far larger than their file, a shard elsewhere, a FIFO.
    """
    folder = _folder(place)
    if folder is None:
        return
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_INDEX):
            _check_shards(path, read_settings(path).get("weight_map"))
        elif path.name in _PROCESSORS:  # parsed where it is asked for: a user may give another
            read(path)
        elif path.name in _SETTINGS:
            _check_layers(path, read_settings(path))
        elif path.suffix == ".json":  # a tokenizer's is long
            open_regular(path).close()
        elif path.suffix in _WEIGHTS:
            check_file(path)


def _folder(place: str) -> Path | None:
    if Path(place).is_dir():
        return Path(place)
    found = cached(place, "config.json")
    return found.parent if found else None


def _check_layers(path: Path, settings: Any) -> None:
    """Raise InputError where a model of these `settings` has layers without end."""
    pending = [settings]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif "layers" in key or "depth" in key:
                counts = value if isinstance(value, list) else [value]
                if any(isinstance(count, int) and count > LAYERS for count in counts):
                    raise InputError(
                        f"{path} says `{key:.80}` {value!s:.80}, and {LAYERS} are built at most",
                        fix="is it the right file?",
                    )


def _check_shards(index: Path, shards: Any) -> None:
    """Raise InputError where a list of shards leads out of its folder."""
    for name in shards.values() if isinstance(shards, Mapping) else ():
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(
                f"{index} keeps weights at {name!r:.200}, outside its folder",
                fix="do not use it; if you trust it, put its weights beside it",
            )

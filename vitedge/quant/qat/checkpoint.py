"""A training run on disk: weights, optimiser and place in one file, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitedge.core import bounded, safetensors
from vitedge.core.errors import InputError
from vitedge.core.manifest import Losses

LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.jsonl"
LogListener = Callable[[dict[str, Any]], None]
"""Is told every line of a log, those of an earlier part of the run first."""


def no_listener(line: dict[str, Any]) -> None:
    """Watches nothing."""


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a run has come."""

    step: int
    """Steps done."""
    best_step: int
    best_loss: float
    """On the held-out images."""
    best_kept: Losses | None = None
    """Of FP32's outputs on those; None where no level was asked for."""
    of: dict[str, str]
    """What is trained, on what and how: a digest of each, by what it is of."""


def write(path: Path, tensors: Mapping[str, Tensor], place: Place) -> None:
    """Replace the file at `path`. Raises InputError, the old file untouched, where that fails."""
    partial = path.with_name(f"{path.name}.partial")
    metadata = {"place": msgspec.json.encode(place).decode()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, partial, metadata)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        kept = "the last one is kept" if path.exists() else "there is none yet"
        raise InputError(
            f"cannot write the checkpoint {path} of step {place.step}: {_reason(error)}; {kept}",
            fix="free some space, and go on with `resume=True`",
        ) from error


_ANEW = "start anew with `force=True`"


def read(path: Path, fingerprint: Mapping[str, str]) -> tuple[Place, dict[str, Tensor]]:
    """Place and tensors of the checkpoint at `path` of the run with this `fingerprint`.

    Raises InputError where it is damaged, or of another run.
    """
    try:
        safetensors.check(path)
    except InputError as error:
        raise InputError(error.what, fix=_ANEW) from error
    try:
        with safe_open(path, framework="pt") as file:
            place = msgspec.json.decode((file.metadata() or {})["place"], type=Place)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, msgspec.DecodeError) as error:
        raise InputError(
            f"{path} is no checkpoint that can be read: {_reason(error)}",
            fix=_ANEW,
        ) from error
    differs = [name for name, digest in fingerprint.items() if place.of.get(name) != digest]
    if differs:
        raise InputError(
            f"{path} is of another run: {', '.join(differs)} differ",
            fix="resume with what it was started with, or start anew with `force=True`",
        )
    return place, tensors


class TrainingLog:
    """One JSON object a line, for every step and every look at the held-out images."""

    def __init__(self, path: Path, step: int, listener: LogListener) -> None:
        """Keeps the lines up to `step`: what came after it is trained again."""
        self._path, self._listener = path, listener
        self.lines: list[dict[str, Any]] = []
        if step and path.exists():
            parsed = map(_parsed, bounded.read_lines(path, fix="start anew with `force=True`"))
            self.lines = [line for line in parsed if line and line["step"] <= step]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in self.lines), encoding="utf-8")
        for line in self.lines:
            listener(line)

    def add(self, **line: Any) -> None:
        """Append one line."""
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
        self._listener(line)


def _parsed(line: str) -> dict[str, Any] | None:
    """None where a killed run left half of it."""
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError:
        return None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)

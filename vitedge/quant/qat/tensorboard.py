"""A run's log as TensorBoard reads it, for those who have its package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitedge.core.errors import InputError, error_line, missing
from vitedge.quant.qat.checkpoint import LogListener, no_listener


def check() -> None:
    """Raises UnavailableError where the package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise missing("tensorboard", "tensorboard")


@contextmanager
def watching(folder: Path | None) -> Iterator[LogListener]:
    """Writes what it is told to event files in `folder`, if there is one.

    Raises InputError where they cannot be written.
    """
    if folder is None:
        yield no_listener
        return
    from torch.utils.tensorboard import SummaryWriter

    with _writing(folder):
        # what an earlier part of the run has written gives way: its log is told again
        writer = SummaryWriter(str(folder), purge_step=0)

    def add(line: dict[str, Any]) -> None:
        with _writing(folder):
            for name, value in _scalars(line):
                writer.add_scalar(name, value, line["step"])
            if "held_out" in line:
                writer.flush()

    try:
        yield add
    finally:
        with _writing(folder):
            writer.close()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write TensorBoard's events to {folder}: {error_line(error)}",
            fix="give `tensorboard` another folder",
        ) from error


def _scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key in ("loss", "learning_rate", "gradient_norm"):
        if key in line:
            yield key, line[key]
    for key, value in line.get("held_out", {}).items():
        if value is not None:
            yield f"held_out/{key}", value

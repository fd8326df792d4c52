"""A run's log as TensorBoard reads it, for those who have its package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    with closing(_Board(folder)) as board:
        yield board


class _Board:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        try:
            # what an earlier part of the run has written gives way: its log is told again
            self._writer = SummaryWriter(str(folder), purge_step=0)
        except OSError as error:
            raise self._unwritable(error) from error

    def __call__(self, line: dict[str, Any]) -> None:
        """Add one line of the log."""
        try:
            for name, value in _scalars(line):
                self._writer.add_scalar(name, value, line["step"])
            if "held_out" in line:
                self._writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Write what is left."""
        try:
            self._writer.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write TensorBoard's events to {self._folder}: {error_line(error)}",
            fix="give --tensorboard another folder",
        )


def _scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key in ("loss", "learning_rate", "gradient_norm"):
        if key in line:
            yield key, line[key]
    for key, value in line.get("held_out", {}).items():
        if value is not None:
            yield f"held_out/{key}", value

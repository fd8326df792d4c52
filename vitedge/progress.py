"""Progress bars on stderr, for people only: nothing is drawn when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Steps:
    """The steps of one job; the bar shows the current one."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: float, total: float, note: str = "") -> None:
        """Show that `done` of `total` is done of `step`, and a `note` on how it goes."""
        if self._bars is None:
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total)
        described = f"{step}: {note}" if note else step
        self._bars.update(self._tasks[step], completed=done, total=total, description=described)

    def say(self, step: str) -> None:
        """Show a step whose length is not known."""
        if self._bars is not None:
            for task in self._bars.tasks:
                if task.total is None:
                    self._bars.update(task.id, total=1, completed=1)
            self._tasks[step] = self._bars.add_task(step, total=None)


SILENT = Steps(None)
"""Shows nothing."""


@contextmanager
def steps() -> Iterator[Steps]:
    """Draw bars while the block runs; they vanish at its end."""
    if not sys.stderr.isatty():
        yield Steps(None)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Steps(bars)

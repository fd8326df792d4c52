"""Progress bars on stderr, for people only: nothing is drawn when stderr is no terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vitedge.core.terminal import TextOnly, printable, text_only

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


LINES = "VITEDGE_PROGRESS_LINES"
"""Set in the environment, steps are lines of JSON: how a device tells its client (`replay`)."""


class Steps:
    """The steps of one job; the bar shows the current one. `wording` is how its notes are put."""

    def __init__(self, bars: Progress | None, wording: Callable[[str], str] = str) -> None:
        self._bars = bars
        self._wording = wording
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: float, total: float, note: str = "") -> None:
        """Show that `done` of `total` is done of `step`, and a `note` on how it goes."""
        if self._bars is None:
            return
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(printable(step), total=total)
        described = printable(f"{step}: {note}" if note else step)
        self._bars.update(self._tasks[step], completed=done, total=total, description=described)

    def say(self, step: str) -> None:
        """Show a step whose length is not known."""
        if self._bars is not None:
            for task in self._bars.tasks:
                if task.total is None:
                    self._bars.update(task.id, total=1, completed=1)
            self._tasks[step] = self._bars.add_task(printable(step), total=None)

    def note(self, text: str) -> None:
        """Print a line that stays, on a terminal or not."""
        text = self._wording(text)
        if self._bars is not None:
            self._bars.console.print(printable(text), markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def replay(self, line: str, where: str) -> None:
        """Show a line that a `vitedge` elsewhere has written to its stderr."""
        try:
            step, *progress = json.loads(line)
        except (ValueError, TypeError):  # no JSON, or no list
            self.note(f"{where}: {line}")
            return
        if progress:
            self(f"{where}: {step}", *progress)
        else:
            self.say(f"{where}: {step}")


class _Lines(Steps):
    """Steps as lines of JSON: `[step]`, or `[step, done, total, note]` at each percent."""

    def __init__(self, wording: Callable[[str], str]) -> None:
        super().__init__(None, wording)
        self._shown = ("", -1)

    def __call__(self, step: str, done: float, total: float, note: str = "") -> None:
        percent = int(100 * done / total) if total else 0
        if (step, percent) != self._shown:
            self._shown = (step, percent)
            self._write(step, float(done), float(total), note)

    def say(self, step: str) -> None:
        self._write(step)

    def _write(self, *line: str | float) -> None:
        print(json.dumps(line), file=sys.stderr, flush=True)


SILENT = Steps(None)
"""Draws nothing."""


@contextmanager
def steps(progress: Steps | None = None, wording: Callable[[str], str] = str) -> Iterator[Steps]:
    """Draw bars while the block runs, unless `progress` shows it; they vanish at its end.

    `wording` is how notes are put.
    """
    if progress is not None:
        yield progress
        return
    if os.environ.get(LINES):
        yield _Lines(wording)
        return
    if not sys.stderr.isatty():
        yield Steps(None, wording)
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    guarded = isinstance(sys.stderr, TextOnly)
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        if guarded:
            text_only()  # rich has put its own streams in place
        yield Steps(bars, wording)

"""A selftest for people: its steps, what cannot run, and the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vitedge.export.selftest.record import Selftest
from vitedge.show import selftest
from vitedge.show.terminal.tables import grid
from vitedge.show.text import number, one_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def steps(record: Selftest) -> RichTable:
    """What ran, or what would."""
    return grid(
        selftest.waiting(record) if record.exit_code is None else selftest.ran(record), padding=1
    )


def summary(record: Selftest) -> Iterator[str]:
    """What cannot run and why, what failed and its fix, and the answer."""
    for step in record.having("cannot run"):
        yield f"cannot run here: {step.name}: {one_line(step.says)}"
    for step in record.having("failed"):
        yield f"failed: {step.name}: {one_line(step.says)}"
        if step.fix:
            yield f"  fix: {one_line(step.fix)}"
    if record.exit_code is None:
        minutes = number(record.remaining_s / 60, ".2g")
        yield f"selftest of {record.target}: about {minutes} min; {selftest.counts(record)}"
    else:
        where = f" on {record.device}" if record.device else ""
        yield (
            f"selftest of {record.target}{where}: {selftest.answer(record)}"
            f" ({selftest.counts(record)})"
        )

"""The figures of a selftest: a row for each step."""

from __future__ import annotations

from vitedge.export.selftest.record import Selftest, StepRecord
from vitedge.show.table import Column, Table

STEPS: tuple[Column[StepRecord], ...] = (
    Column("step", "step", "", lambda step: step.name, kind="head"),
    Column("status", "status", "", lambda step: step.status, kind="answer"),
    Column("seconds", "took", "s", lambda step: step.took_s),
    Column("says", "what it says", "", lambda step: step.says, kind="text"),
)
PLANNED: tuple[Column[StepRecord], ...] = (
    STEPS[0],
    Column("needs", "needs", "", lambda step: step.needs, kind="word"),
    Column("estimated_s", "about", "s", lambda step: step.estimated_s),
)
MISSING: tuple[Column[StepRecord], ...] = (
    STEPS[0],
    PLANNED[1],
    Column("why", "why not", "", lambda step: step.says, kind="text"),
    Column("fix", "what to do", "", lambda step: step.fix, kind="text"),
)


def ran(record: Selftest) -> Table[StepRecord]:
    """What passed or failed, failures first."""
    rows = [*record.having("failed"), *record.having("passed")]
    return Table("Steps", STEPS, rows)


def waiting(record: Selftest) -> Table[StepRecord]:
    """What is still to be done."""
    return Table("To be done", PLANNED, record.having("waiting"))


def missing(record: Selftest) -> Table[StepRecord]:
    """What cannot run, and why."""
    return Table("Cannot run here", MISSING, record.having("cannot run"))


def answer(record: Selftest) -> str:
    """`passed`, `failed`, and that of one which could not run or has not ended."""
    answers = {0: "passed", 1: "failed", 3: "nothing could run", None: "not ended"}
    return answers[record.exit_code]


def counts(record: Selftest) -> str:
    """How many steps came to what."""
    words = {
        "passed": "passed",
        "failed": "failed",
        "waiting": "waiting",
        "cannot run": "cannot run here",
    }
    numbers = {status: len(record.having(status)) for status in words}  # type: ignore[arg-type]
    return ", ".join(f"{count} {words[status]}" for status, count in numbers.items() if count)

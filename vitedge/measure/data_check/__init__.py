"""What a data set is, before it is used: figures of its images and classes, and what to know."""

from __future__ import annotations

from typing import Literal

import msgspec

from vitedge.core.errors import InputError, first_few
from vitedge.core.spec import Task

SCHEMA = "vitedge.data-check/1"

Severity = Literal["error", "warning", "info"]


class DataFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to know of a data set."""

    severity: Severity
    """error: it cannot be used as it is; warning: it can, with a loss; info: as it should be."""
    what: str
    count: int = 0
    """Images, files or classes it is about; 0: all."""
    examples: tuple[str, ...] = ()
    fix: str = ""


class ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    """One class of the set."""

    name: str
    images: int
    """Those that were decoded; of masks, those that show it."""


class DataCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What `vitedge check-data` found."""

    schema: str = SCHEMA
    data: str
    model: str | None
    task: Task
    used_as: Literal["evaluation", "calibration"]
    """What it was read as: evaluation where it has labels or masks."""
    images: int
    usable: int
    skipped: dict[str, int]
    """Why, and how many."""
    classes: tuple[ClassCount, ...]
    width_px: tuple[int, int, int] | None
    """Least, median and largest; None where no header was read."""
    height_px: tuple[int, int, int] | None
    modes: dict[str, int]
    """Pillow's names of pixel formats, most frequent first."""
    findings: tuple[DataFinding, ...]
    """Errors first."""

    @property
    def errors(self) -> list[InputError]:
        """What keeps it from being used."""
        return [
            InputError(self._line(f), fix=f.fix) for f in self.findings if f.severity == "error"
        ]

    def _line(self, finding: DataFinding) -> str:
        """A finding by itself: of which set, and examples."""
        of = "" if f"'{self.data}" in finding.what else f"'{self.data}': "
        examples = f" ({first_few(finding.examples)})" if finding.examples else ""
        return f"{of}{finding.what}{examples}"

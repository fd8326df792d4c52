"""Where a verdict goes: the files asked for, and GitHub's step summary.

All are checked before the gate does any work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitedge.core import files
from vitedge.core.errors import InputError, nearest
from vitedge.gate.verdict import Verdict
from vitedge.show.ci import FORMATS, markdown

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True)
class VerdictOutputs:
    """What is written once the gate has its verdict."""

    destinations: tuple[tuple[str, Path], ...]
    """Formats' names, and where to."""
    step_summary: Path | None

    def write(self, verdict: Verdict) -> None:
        """Write them all. Raises InputError where the disk is full or a folder went away."""
        for name, path in self.destinations:
            files.write(path, FORMATS[name](verdict))
        if self.step_summary:
            self._append(verdict, self.step_summary)

    def _append(self, verdict: Verdict, path: Path) -> None:
        try:
            room = markdown.MOST_BYTES - path.stat().st_size  # a step's commands share one file
            with path.open("a", encoding="utf-8") as file:
                file.write(markdown.render(verdict, room))
        except OSError as error:
            raise InputError(
                f"cannot append to {path}: {error.strerror}", fix=f"unset {STEP_SUMMARY}"
            ) from error


def plan(
    junit: Path | None,
    write: Sequence[str],
    environment: Mapping[str, str],
    others: Sequence[tuple[Path, str]] = (),
) -> VerdictOutputs:
    """Check that all of it can be written.

    Args:
        junit: where JUnit XML goes.
        write: `FORMAT=FILE` each.
        environment: variables, for GitHub's step summary.
        others: files of the gate's other options and their names, which none of these may be.

    Raises:
        InputError: an unknown format, a path that cannot be written or is given twice.
    """
    destinations = [_parse(text) for text in write]
    options = [(path, f"`write='{name}'`") for name, path in destinations]
    if junit:
        destinations.append(("junit", junit))
        options.append((junit, "`junit`"))
    for path, option in options:
        files.check_writable(path, option)
    options_by_path: dict[str, str] = {}
    for path, option in (*options, *others):
        other = options_by_path.setdefault(os.path.realpath(path), option)
        if other is not option:
            raise InputError(f"{other} and {option} are both {path}", fix="name another file")
    summary = Path(environment[STEP_SUMMARY]) if environment.get(STEP_SUMMARY) else None
    return VerdictOutputs(
        destinations=tuple(destinations),
        step_summary=summary if summary and summary.is_file() else None,
    )


def _parse(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if name not in FORMATS:
        raise InputError(f"`write='{text}'`: unknown format '{name}'", fix=nearest(name, FORMATS))
    if not path:
        raise InputError(f"`write='{text}'` names no file", fix=f"write {name}=FILE")
    return name, Path(path)

"""What earlier runs measured, one JSON line each: a file that CI caches from commit to commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from vitedge.core.errors import InputError
from vitedge.gate.verdict import Answer, Verdict
from vitedge.show.ci import figures

SCHEMA = "vitedge.gate-history/1"
MOST_RUNS = 200
"""Kept in the file; the oldest go first."""
COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")
"""Variables in which GitHub, GitLab and Jenkins name the commit."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the gate."""

    schema: str
    commit: str
    """Empty outside CI."""
    answer: Answer
    values: dict[str, dict[str, float | None]]
    """By artifact and check, in the unit of the metric's name; None where not measured."""


def read(path: Path) -> tuple[Run, ...]:
    """Return earlier runs, oldest first; none where there is no file yet. Raises InputError."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"cannot read --history {path}: {error.strerror}") from error
    runs = []
    for number, line in enumerate(lines, 1):
        try:
            run = msgspec.json.decode(line, type=Run)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(
                f"--history {path}, line {number}: {error}", fix="remove that line, or the file"
            ) from error
        if run.schema != SCHEMA:
            raise InputError(
                f"--history {path}, line {number}: schema '{run.schema}', not '{SCHEMA}'",
                fix="use the vitedge that wrote it, or another file",
            )
        runs.append(run)
    return tuple(runs)


def run_of(verdict: Verdict, environment: Mapping[str, str]) -> Run:
    """Return what is kept of this run."""
    commits = (environment[variable] for variable in COMMIT if environment.get(variable))
    return Run(
        schema=SCHEMA,
        commit=next(commits, ""),
        answer=verdict.answer,
        values={
            name: {figures.title(check): figures.finite(check) for check in judged.checks}
            for name, judged in zip(figures.names(verdict), verdict.judged, strict=True)
        },
    )


def render(runs: tuple[Run, ...]) -> str:
    """The file: one line for each of the last MOST_RUNS."""
    return "".join(f"{msgspec.json.encode(run).decode()}\n" for run in runs[-MOST_RUNS:])

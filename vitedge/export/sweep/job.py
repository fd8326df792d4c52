"""The sweep: trials that are not done yet are built, then timed, then judged against each other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from vitedge.core import files, report
from vitedge.core.bundle import REPORT, open_bundle
from vitedge.core.errors import InputError, VitedgeError
from vitedge.core.progress import Steps
from vitedge.export.sweep import choice, spec
from vitedge.export.sweep.choice import Shipped
from vitedge.export.sweep.row import Row, Rows
from vitedge.export.sweep.spec import Sweep, Trial, Trials
from vitedge.export.sweep.trial import Place, build, failed, key_of, timed
from vitedge.export.sweep.workers import Outcome, workers

SCHEMA = "vitedge.sweep/1"
FILE = "sweep.json"


class SweepResult(msgspec.Struct, frozen=True, kw_only=True):
    """sweep.json: every trial, and which to ship."""

    schema: str = SCHEMA
    shipped: tuple[Shipped, ...]
    rows: tuple[Row, ...]

    @property
    def failed(self) -> list[Row]:
        """Trials that came to nothing."""
        return [row for row in self.rows if row.state == "failed"]


@dataclass(frozen=True)
class Request:
    """What `vitedge sweep` was asked to do."""

    file: Path
    output: Path
    cache: Path
    workers: int | None
    """Ray's on this machine; 0: one a core; None: no Ray, one trial after the other."""
    address: str
    """Of a Ray cluster; empty: none."""
    limit: int | None
    """Of trials."""

    @property
    def place(self) -> Place:
        """Where its files lie, the same whatever folder a worker is in."""
        return Place(self.output.absolute(), self.cache.absolute())


def chosen(request: Request) -> tuple[Sweep, list[Trial]]:
    """The sweep and its trials. Raises InputError."""
    sweep = spec.read(request.file)
    return sweep, Trials(sweep, str(request.file)).spread(request.limit)


def run(request: Request, steps: Steps) -> SweepResult:
    """Run a sweep, or what is left of it, and write sweep.json. Raises InputError."""
    sweep, trials = chosen(request)
    rows = Rows(request.output)
    with _alone(request.output):
        return _run(request, sweep, trials, rows, steps)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Refuse a folder in which another sweep is at work; one that was killed is none."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (output / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another sweep is at work in {output}", fix="wait for it, or pass `output`"
            ) from error
        yield


def _run(
    request: Request, sweep: Sweep, trials: Sequence[Trial], rows: Rows, steps: Steps
) -> SweepResult:
    place = request.place
    keys = [key_of(trial, sweep.duration_s) for trial in trials]
    known = [rows.read(trial.name) for trial in trials]
    done = [
        row if row and row.key == key and _is_whole(row, place) else None
        for row, key in zip(known, keys, strict=True)
    ]
    left = [place_ for place_, row in enumerate(done) if row is None]
    to_time = [row for row in done if row and row.state == "built"]
    if left or to_time:
        with workers(request.workers, request.address, sweep.trial, place.output) as able:
            task = partial(build, place=place, sweep=sweep)
            calls = [(trials[i], keys[i]) for i in left]
            for i, row in _rows(able.run(task, calls), calls, rows, steps, "building"):
                done[left[i]] = row
            built = [i for i, row in enumerate(done) if row and row.state == "built"]
            time = partial(timed, place=place, sweep=sweep)
            to_call = [(done[i],) for i in built]
            about = [(trials[i], keys[i]) for i in built]
            for i, row in _rows(able.time(time, to_call), about, rows, steps, "timing"):
                done[built[i]] = row
    whole = [row for row in done if row]
    by_name = dict(
        zip((trial.name for trial in trials), zip(trials, keys, strict=True), strict=True)
    )
    for row in _dropped(whole, sweep):  # earlier, when another was better
        steps.say(f"{row.trial}, from the cache")
        again = build(*by_name[row.trial], place, sweep)
        if row.report and again.report and row.report.files == again.report.files:
            report.write(row.report, place.output / again.artifact / REPORT)
            again = msgspec.structs.replace(row, artifact=again.artifact)
            whole[whole.index(row)] = again
            rows.write(again)
    return _judged(whole, sweep, rows, place)


def _dropped(done: Sequence[Row], sweep: Sweep) -> list[Row]:
    """Rows that are to be kept and whose artifacts are not there."""
    kept = _kept(choice.with_front(done), sweep)
    return [r for r in done if r.trial in kept and r.state == "done" and not r.artifact]


def _kept(marked: Sequence[Row], sweep: Sweep) -> set[str]:
    """The trials whose artifacts stay."""
    kept = {row.trial for row in marked if row.front or sweep.keep == "all"}
    decided = choice.shipped(marked, sweep.max_drop_pp)
    return kept | {ship.trial for ship in decided if ship.trial}


def _is_whole(row: Row, place: Place) -> bool:
    """Whether nothing of a row is missing that it has not dropped itself."""
    if row.state == "failed":
        return False
    if not row.artifact:
        return row.state == "done"
    try:
        open_bundle(place.output / row.artifact)
    except InputError:
        return False
    return True


def _rows(
    outcomes: Iterator[Outcome],
    calls: Sequence[tuple[Trial, str]],
    rows: Rows,
    steps: Steps,
    what: str,
) -> Iterator[tuple[int, Row]]:
    """The row of each outcome, as they come; those that failed are told and written."""
    total = len(calls)
    for count, (place, outcome, tries) in enumerate(outcomes, 1):
        row = outcome
        trial, key = calls[place]
        if isinstance(outcome, BaseException):
            row = failed(trial, key, outcome, tries)
            rows.write(row)
            steps.note(f"{row.trial}: {row.error}")
        elif tries > 1:
            row = msgspec.structs.replace(row, attempts=tries)
            rows.write(row)
        for warning in row.warnings if what == "building" else ():
            steps.note(f"{row.trial}: {warning}")
        steps(f"{what} trials", count, total, trial.name)
        yield place, row


def _judged(done: Sequence[Row], sweep: Sweep, rows: Rows, place: Place) -> SweepResult:
    """The result, written; artifacts that are not to be kept go, and are named no more."""
    marked = choice.with_front(done)
    decided = choice.shipped(marked, sweep.max_drop_pp)
    kept = _kept(marked, sweep)
    final: list[Row] = []
    for row, before in zip(marked, done, strict=True):
        if row.trial not in kept and row.artifact:
            shutil.rmtree(place.artifacts(row.trial), ignore_errors=True)
            row = msgspec.structs.replace(row, artifact="")
        if row != before:
            rows.write(row)
        final.append(row)
    result = SweepResult(shipped=tuple(decided), rows=tuple(final))
    content = msgspec.json.format(msgspec.json.encode(result), indent=2)
    files.replace(place.output / FILE, content + b"\n", fix="free some space")
    return result


def first_error(result: SweepResult) -> VitedgeError | None:
    """The first failure, where every trial failed."""
    if len(result.failed) < len(result.rows):
        return None
    row = result.failed[0]
    return InputError(f"every trial failed, {row.trial} first: {row.error}", fix=row.fix)

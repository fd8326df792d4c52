"""What came of one trial: a file that says how far it is, so that a killed sweep goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from vitedge.core import files
from vitedge.core.errors import InputError
from vitedge.core.json_document import read_json
from vitedge.core.report import Report
from vitedge.core.spec import Precision
from vitedge.export.sweep.spec import Trial, Value


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A trial, and what is known of it."""

    trial: str
    model: str
    target: str
    """As the sweep names it."""
    precision: Precision
    calibration: str
    """Name of the recipe."""
    parameters: dict[str, Value]
    """Of the recipe, as the sweep sets them."""
    key: str
    """Digest of all that decides what comes of it."""
    state: Literal["built", "done", "failed"]
    """`built`: validated, and to be timed."""
    error: str = ""
    fix: str = ""
    attempts: int = 1
    seconds: float = 0.0
    """That it took, without waiting."""
    made: dict[str, int] = {}
    """Steps that were made and not taken from the cache, by kind."""
    notes: tuple[str, ...] = ()
    """What to know of its artifact."""
    warnings: tuple[str, ...] = ()
    """Of the cache."""
    artifact: str = ""
    """Its folder, relative to the sweep's; empty where it was dropped, or there is none."""
    report: Report | None = None
    front: bool = False
    """Whether none of its model and target on a like host beats it in accuracy and latency."""


def of_trial(trial: Trial, key: str, **facts: object) -> Row:
    """A row that says `facts` of a trial."""
    identity: Mapping[str, object] = {
        "trial": trial.name,
        "model": trial.model.model or "digits",
        "target": trial.target,
        "precision": trial.precision,
        "calibration": trial.recipe.name,
        "parameters": trial.parameters,
    }
    row = msgspec.convert({**identity, "key": key, "state": "built"}, Row)
    return msgspec.structs.replace(row, **facts)


class Rows:
    """A folder of rows, one file each, written in one rename."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where it cannot be made."""
        self.folder = folder / "trials"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot write to {folder}: {error.strerror}", fix="choose another `output` folder"
            ) from error

    def read(self, trial: str) -> Row | None:
        """That of a trial; None where there is none, or it is damaged."""
        try:
            return msgspec.convert(read_json(self.folder / f"{trial}.json"), Row)
        except (InputError, msgspec.MsgspecError):
            return None

    def write(self, row: Row) -> None:
        """Raises InputError where the disk is full."""
        content = msgspec.json.format(msgspec.json.encode(row), indent=1)
        files.replace(self.folder / f"{row.trial}.json", content, fix="free some space")

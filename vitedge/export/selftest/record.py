"""selftest.json: what each step came to, on which machine; written anew after every step."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from vitedge.core import files
from vitedge.core.errors import InputError
from vitedge.core.host import Host
from vitedge.core.json_document import read_json
from vitedge.core.report import Report

SCHEMA = "vitedge.selftest/1"
RECORD, PAGE, LOGS, BUNDLES = "selftest.json", "selftest.html", "logs", "artifacts"
"""What lies in the folder of evidence."""

Need = Literal["nothing", "exporter", "runtime", "gpu"]
"""`exporter` is PyTorch and ONNX, `runtime` the target's on a machine that it is for, `gpu` that
and that it computes on a GPU."""
Status = Literal["waiting", "passed", "failed", "cannot run"]


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One step."""

    name: str
    needs: Need
    status: Status = "waiting"
    says: str = ""
    """Its figures in words, what is wrong, or why it cannot run."""
    fix: str = ""
    estimated_s: float
    """On two cores of a server's CPU."""
    took_s: float | None = None
    """None where it did not run."""
    figures: dict[str, float] = {}
    """By their names, with units."""


class Selftest(msgspec.Struct, frozen=True, kw_only=True):
    """A selftest, ended or not."""

    schema: str = SCHEMA
    version: str
    """Of vitedge."""
    target: str
    device: str = ""
    """Where it was measured, an address; empty: here."""
    quick: bool
    host: Host
    """The machine that it was started on."""
    device_host: Host | None = None
    """The device; None where that is `host`."""
    fingerprint: str
    """Of `host`."""
    bound: str
    """Hash of all that its steps depend on: one that passed is not repeated while this holds."""
    run: str
    """Names what it leaves on a device."""
    started_at: str
    """ISO 8601, UTC."""
    exit_code: int | None = None
    """None while it runs: 0 passed, 1 a step failed, 3 nothing could run."""
    steps: tuple[StepRecord, ...]
    reports: tuple[Report, ...] = ()
    """Of the artifacts that were measured, in their order."""

    def having(self, status: Status) -> list[StepRecord]:
        """The steps of one status."""
        return [step for step in self.steps if step.status == status]

    @property
    def remaining_s(self) -> float:
        """Estimated, of the steps that wait."""
        return sum(step.estimated_s for step in self.having("waiting"))

    def ended(self) -> Selftest:
        """The same with its exit code."""
        ran = self.having("passed") or self.having("failed")
        code = 1 if self.having("failed") else 0 if ran else 3
        return msgspec.structs.replace(self, exit_code=code)

    def with_step(self, step: StepRecord) -> Selftest:
        """The same, `step` in the place of the one of its name."""
        steps = tuple(step if other.name == step.name else other for other in self.steps)
        return msgspec.structs.replace(self, steps=steps)


def read(folder: Path) -> Selftest | None:
    """The record in `folder`; None where there is none. Raises InputError."""
    path = folder / RECORD
    if not path.exists():
        return None
    fix = "delete it, or pass another `output`"
    content = read_json(path, fix=fix)
    try:
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise InputError(f"{path} is not of schema '{SCHEMA}'", fix=fix)
        return msgspec.convert(content, Selftest)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error


def write(record: Selftest, folder: Path) -> None:
    """Write `record` in one rename. Raises InputError."""
    content = msgspec.json.format(msgspec.json.encode(record), indent=2)
    files.replace(folder / RECORD, content + b"\n", fix="free some space, or use `output`")

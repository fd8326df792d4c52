"""What is judged: a bundle with its report, or a report alone, read and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from vitedge.core import commands, report
from vitedge.core.bundle import REPORT, Bundle, open_bundle
from vitedge.core.errors import InputError
from vitedge.core.report import Report
from vitedge.gate.verdict import ReportSignature
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import Evidence

Key = tuple[str, str, str]
"""Model, target, precision."""


@dataclass(frozen=True)
class Subject:
    """One artifact and what was measured of it."""

    path: Path
    report: Report
    evidence: Evidence | None
    """Of the validation that the report tells of; None where there is none."""
    fault: str = ""
    """Why the FP32 bundle it is compared with is no baseline; empty where it is, or is not here."""
    signature: ReportSignature = field(default_factory=ReportSignature)
    """Whether the report is signed."""

    @property
    def folder(self) -> Path:
        """Where the report and the evidence lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def key(self) -> Key:
        """What a baseline knows it by."""
        return self.report.model, self.report.target, self.report.precision

    def to_run(self, command: str) -> str:
        """What to do where it was not measured."""
        name = self.path if self.path == self.folder else self.report.artifact
        return f"run {commands.command(command, name)}"

    @property
    def fingerprint(self) -> str | None:
        """Of the machine that timed it; None where that is not known."""
        return self.report.conditions.fingerprint if self.report.conditions else None

    @property
    def broken(self) -> str:
        """Why its accuracy does not count: FP32, or it, lost parity; empty where both have it."""
        parity = self.report.parity
        if self.fault or parity is None or not parity.broken:
            return self.fault
        return f"it does not compute here what it should: {parity.broken}"


def load(path: Path, bundle: Bundle | None = None, file: Path | None = None) -> Subject:
    """Read an artifact or a report.json, with the evidence beside it.

    `bundle` is the artifact where it is open already, `file` a copy of the report to read instead.
    Raises InputError for what is no report, is damaged, or is of another model's bytes.
    """
    if os.path.isdir(path):
        bundle = bundle or open_bundle(path)
        file = file or path / REPORT
        content = report.read(file) or Report(**report.identity(bundle))
        if content.files != bundle.model_files:
            raise InputError(
                f"{path / REPORT} is of another model's bytes",
                fix=commands.command("validate", path),
            )
        return Subject(path, content, evidence_of(file.parent, content))
    file = file or path
    written = report.read(file)
    if written is None:
        raise InputError(f"no artifact and no report at {path}", fix="give a folder or report.json")
    return Subject(path, written, evidence_of(file.parent, written))


def evidence_of(folder: Path, content: Report) -> Evidence | None:
    """The evidence in `folder`, where it is of the validation that the report tells of."""
    validation, accuracy = evidence.read(folder), content.accuracy
    if validation is None or accuracy is None or validation.about.files != content.files:
        return None
    recorded = (validation.about.metric, validation.about.data, len(validation.per_image.digests))
    return validation if recorded == (accuracy.metric, accuracy.data, accuracy.n) else None

"""The last accepted artifacts: one file of their predictions, to pair the next ones with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from vitedge.core.commands import command
from vitedge.core.errors import InputError
from vitedge.core.report import Report
from vitedge.gate.subject import Key, Subject
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import About, Evidence, PerImage

SCHEMA = "vitedge.baseline/1"
_ARRAYS = ("digests", "labels", "artifact")


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    accepted: tuple[tuple[Report, About], ...]
    """Of each artifact, what was measured of it, and what the arrays of its place are."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline's file."""

    path: Path
    subjects: dict[Key, Subject]

    def has(self, subject: Subject) -> bool:
        """Whether there is one of the same model, target and precision."""
        return subject.key in self.subjects

    def find(self, subject: Subject) -> Subject:
        """The one of the same model, target and precision. Raises InputError without one."""
        if self.has(subject):
            return self.subjects[subject.key]
        known = "; ".join(map(" ".join, self.subjects)) or "nothing"
        raise InputError(
            f"{self.path} has no {' '.join(subject.key)}; it has: {known}",
            fix="accept it with `accept=True`",
        )


def read(path: Path) -> Baseline:
    """Raises InputError for a file that is not there, cannot be read, or has another schema."""
    fix = "write one with `accept=True`, or use the vitedge that wrote it"
    if not path.is_file():
        raise InputError(f"no baseline at {path}", fix=fix)
    header, arrays = evidence.load(path, SCHEMA, fix)
    subjects: list[Subject] = []
    try:
        accepted = msgspec.convert(header, _Header).accepted
        for place, (report, about) in enumerate(accepted):
            per_image = PerImage(*(arrays[f"{place}.{name}"] for name in _ARRAYS))
            validation = Evidence(about, evidence.checked(per_image, about.metric))
            subjects.append(Subject(path, report, validation))
    except (msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error
    return Baseline(path, {subject.key: subject for subject in subjects})


def check_acceptable(subjects: Sequence[Subject]) -> None:
    """Raises InputError where one has no evidence, or a baseline would take two for one."""
    for subject in subjects:
        if subject.evidence is None:
            raise InputError(
                f"{subject.path} has no evidence of each image to be accepted by",
                fix=f"{command('validate', subject.path)}, or keep evidence.npz beside the report",
            )
    if len({subject.key for subject in subjects}) < len(subjects):
        raise InputError(
            "two artifacts are of the same model, target and precision, and a baseline has one",
            fix="accept one of them",
        )


def write(path: Path, subjects: Sequence[Subject]) -> None:
    """Write `subjects` into the baseline at `path`, beside other models there. Raises InputError.

    All have evidence.
    """
    merged = read(path).subjects if path.exists() else {}
    merged |= {subject.key: subject for subject in subjects}
    accepted: list[tuple[Report, About]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for place, key in enumerate(sorted(merged)):
        validation = merged[key].evidence
        assert validation
        accepted.append((merged[key].report, validation.about))
        arrays |= {f"{place}.{name}": getattr(validation.per_image, name) for name in _ARRAYS}
    evidence.save(path, _Header(accepted=tuple(accepted)), arrays)

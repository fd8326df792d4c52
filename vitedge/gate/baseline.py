"""The last accepted artifacts: one file of their predictions, to pair the next ones with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from vitedge.core.errors import InputError
from vitedge.core.report import Metric
from vitedge.gate.subject import Subject
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import PerImage

SCHEMA = "vitedge.baseline/1"
_ARRAYS = ("digests", "labels", "artifact")
Key = tuple[str, str, str]
"""Model, target, precision."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted of one model on one target in one precision."""

    artifact: str
    model: str
    target: str
    precision: str
    files: dict[str, str]
    metric: Metric
    data: str
    preprocessing: str
    """SHA-256 of what the manifest says of it."""
    fingerprint: str | None
    """Of the machine that timed it; None, as below, where it was not timed."""
    against: str | None
    speedup: float | None
    speedup_log_se: float | None
    rounds: int | None
    batch: int | None
    """Images a run."""

    @property
    def key(self) -> Key:
        return self.model, self.target, self.precision


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    accepted: tuple[Accepted, ...]


@dataclass(frozen=True, eq=False)
class Entry:
    """One accepted artifact."""

    about: Accepted
    per_image: PerImage


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline's file."""

    path: Path
    entries: tuple[Entry, ...]

    def has(self, subject: Subject) -> bool:
        """Whether there is an entry of the same model, target and precision."""
        return any(entry.about.key == key(subject) for entry in self.entries)

    def find(self, subject: Subject) -> Entry:
        """The entry of the same model, target and precision. Raises InputError without one."""
        subject_key = key(subject)
        for entry in self.entries:
            if entry.about.key == subject_key:
                return entry
        known = "; ".join(" ".join(entry.about.key) for entry in self.entries) or "nothing"
        raise InputError(
            f"{self.path} has no {' '.join(subject_key)}; it has: {known}",
            fix="accept it with 'vitedge gate --accept'",
        )


def key(subject: Subject) -> Key:
    """What a baseline knows an artifact by."""
    return subject.report.model, subject.report.target, subject.report.precision


def read(path: Path) -> Baseline:
    """Raises InputError for a file that is not there, cannot be read, or has another schema."""
    fix = "write one with 'vitedge gate --accept', or use the vitedge that wrote it"
    if not path.is_file():
        raise InputError(f"no baseline at {path}", fix=fix)
    header, arrays = evidence.load(path, SCHEMA, fix)
    try:
        accepted = msgspec.convert(header, _Header).accepted
        return Baseline(path, tuple(_read(arrays, *entry) for entry in enumerate(accepted)))
    except (msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error


def _read(arrays: Mapping[str, NDArray[Any]], place: int, about: Accepted) -> Entry:
    per_image = evidence.bare(*(arrays[f"{place}.{name}"] for name in _ARRAYS))
    return Entry(about, evidence.checked(per_image, about.metric))


def entries(subjects: Sequence[Subject]) -> dict[Key, Entry]:
    """What a baseline would keep of `subjects`.

    Raises InputError where one has no evidence, or two would be one.
    """
    new = {key(subject): _entry(subject) for subject in subjects}
    if len(new) < len(subjects):
        raise InputError(
            "two artifacts are of the same model, target and precision, and a baseline has one",
            fix="accept one of them",
        )
    return new


def write(path: Path, new: Mapping[Key, Entry]) -> None:
    """Write `new` into the baseline at `path`, beside other models there. Raises InputError."""
    previous = read(path).entries if path.exists() else ()
    merged = [*(entry for entry in previous if entry.about.key not in new), *new.values()]
    merged.sort(key=lambda entry: entry.about.key)
    arrays = {
        f"{place}.{name}": getattr(entry.per_image, name)
        for place, entry in enumerate(merged)
        for name in _ARRAYS
    }
    evidence.save(path, _Header(accepted=tuple(entry.about for entry in merged)), arrays)


def _entry(subject: Subject) -> Entry:
    validation = subject.evidence
    if validation is None:
        raise InputError(
            f"{subject.path} has no evidence of each image to be accepted by",
            fix=f"vitedge validate {subject.path}, or keep evidence.npz beside the report",
        )
    latency = subject.report.latency
    about = Accepted(
        artifact=subject.report.artifact,
        model=subject.report.model,
        target=subject.report.target,
        precision=subject.report.precision,
        files=subject.report.files,
        metric=validation.about.metric,
        data=validation.about.data,
        preprocessing=validation.about.preprocessing,
        fingerprint=subject.fingerprint if latency else None,
        against=latency.against if latency else None,
        speedup=latency.speedup if latency else None,
        speedup_log_se=latency.speedup_log_se if latency else None,
        rounds=latency.rounds if latency else None,
        batch=latency.batch if latency else None,
    )
    return Entry(about, validation.per_image)

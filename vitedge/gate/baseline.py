"""The last accepted artifacts: one file of their predictions, to pair the next ones with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge import evidence
from vitedge.errors import InputError
from vitedge.evidence import PerImage
from vitedge.gate.subject import Subject
from vitedge.report import Metric

SCHEMA = "vitedge.baseline/1"
_ARRAYS = ("digests", "labels", "artifact")


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

    @property
    def key(self) -> tuple[str, str, str]:
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

    def find(self, subject: Subject) -> Entry:
        """The entry of the same model, target and precision. Raises InputError without one."""
        wanted = key(subject)
        for entry in self.entries:
            if entry.about.key == wanted:
                return entry
        known = "; ".join(" ".join(entry.about.key) for entry in self.entries) or "nothing"
        raise InputError(
            f"{self.path} has no {' '.join(wanted)}; it has: {known}",
            fix="accept it with 'vitedge gate --accept'",
        )


def key(subject: Subject) -> tuple[str, str, str]:
    """What a baseline knows an artifact by: model, target, precision."""
    return subject.identity.model, subject.identity.target, subject.identity.precision


def read(path: Path) -> Baseline:
    """Raises InputError for a file that is not there, cannot be read, or has another schema."""
    fix = "write one with 'vitedge gate --accept', or use the vitedge that wrote it"
    if not path.is_file():
        raise InputError(f"no baseline at {path}", fix=fix)
    header, named = evidence.load(path, SCHEMA, fix)
    try:
        about = msgspec.convert(header, _Header).accepted
        entries = tuple(
            Entry(
                each,
                evidence.checked(evidence.bare(*(named[f"{place}.{name}"] for name in _ARRAYS))),
            )
            for place, each in enumerate(about)
        )
    except (msgspec.ValidationError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", fix=fix) from error
    return Baseline(path, entries)


def accept(path: Path, subjects: Sequence[Subject]) -> None:
    """Write `subjects` into the baseline at `path`, beside those of other models there.

    Raises InputError where one has no evidence, or the file cannot be written.
    """
    new = {key(subject): _entry(subject) for subject in subjects}
    if len(new) < len(subjects):
        raise InputError(
            "two artifacts are of the same model, target and precision, and a baseline has one",
            fix="accept one of them",
        )
    kept = read(path).entries if path.exists() else ()
    entries = [*(entry for entry in kept if entry.about.key not in new), *new.values()]
    entries.sort(key=lambda entry: entry.about.key)
    named = {
        f"{place}.{name}": getattr(entry.per_image, name)
        for place, entry in enumerate(entries)
        for name in _ARRAYS
    }
    evidence.save(path, _Header(accepted=tuple(entry.about for entry in entries)), named)


def _entry(subject: Subject) -> Entry:
    found = subject.evidence
    if found is None:
        raise InputError(
            f"{subject.path} has no evidence of each image to be accepted by",
            fix=f"vitedge validate {subject.path}, or keep evidence.npz beside the report",
        )
    latency = subject.latency
    about = Accepted(
        artifact=subject.identity.artifact,
        model=subject.identity.model,
        target=subject.identity.target,
        precision=subject.identity.precision,
        files=subject.identity.files,
        metric=found.about.metric,
        data=found.about.data,
        preprocessing=found.about.preprocessing,
        fingerprint=subject.fingerprint if latency else None,
        against=latency.against if latency else None,
        speedup=latency.speedup if latency else None,
        speedup_log_se=latency.speedup_log_se if latency else None,
        rounds=latency.rounds if latency else None,
    )
    return Entry(about, found.per_image)

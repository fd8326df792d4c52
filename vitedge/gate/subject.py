"""What is judged: a bundle with its report, or a report alone, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vitedge.core import report
from vitedge.core.bundle import REPORT, open_bundle
from vitedge.core.errors import InputError
from vitedge.core.measurements import Conditions, Latency, Memory
from vitedge.core.report import Accuracy, Numerics, Parity, Size
from vitedge.measure.accuracy import evidence
from vitedge.measure.accuracy.evidence import Evidence

SectionT = TypeVar("SectionT", bound=msgspec.Struct)


class SubjectIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says it is about."""

    artifact: str
    model: str
    target: str
    precision: str
    files: dict[str, str]


@dataclass(frozen=True)
class Subject:
    """One artifact and what was measured of it. A section is None where that was not done."""

    path: Path
    identity: SubjectIdentity
    accuracy: Accuracy | None
    numerics: Numerics | None
    latency: Latency | None
    size: Size | None
    memory: Memory | None
    fingerprint: str | None
    """Of the machine that timed it; None where that is not known."""
    broken: str
    """Why its accuracy does not count: it lost parity on a machine; empty where it has it."""
    evidence: Evidence | None

    @property
    def name(self) -> str:
        """What to call it in a command."""
        return str(self.path) if self.path.is_dir() else self.identity.artifact


def load(path: Path) -> Subject:
    """Read an artifact's folder, or a report.json, with the evidence beside it.

    Raises InputError for what is no report, is damaged, or is of another model's bytes.
    """
    if path.is_dir():
        bundle = open_bundle(path)
        content = report.read(path / REPORT)
        if content and content.get("files") != bundle.model_files:
            raise InputError(
                f"{path / REPORT} is of another model's bytes", fix=f"vitedge validate {path}"
            )
        content = content or report.identity(bundle)
        folder = path
    elif path.is_file():
        content, folder = report.read(path), path.parent
    else:
        raise InputError(f"no artifact and no report at {path}", fix="give a folder or report.json")
    return _parse(path, content, folder)


def _parse(path: Path, content: dict[str, Any], folder: Path) -> Subject:
    def section(name: str, kind: type[SectionT]) -> SectionT | None:
        return _convert(content[name], kind, path, name) if content.get(name) is not None else None

    identity = _convert(content, SubjectIdentity, path, "report")
    accuracy = section("accuracy", Accuracy)
    conditions, parity = section("conditions", Conditions), section("parity", Parity)
    broken = parity.broken if parity else ""
    return Subject(
        path=path,
        identity=identity,
        accuracy=accuracy,
        numerics=section("numerics", Numerics),
        latency=section("latency", Latency),
        size=section("size", Size),
        memory=section("memory", Memory),
        fingerprint=conditions.fingerprint if conditions else None,
        broken=f"it does not compute here what it should: {broken}" if broken else "",
        evidence=_evidence(folder, identity, accuracy),
    )


def _convert(content: Any, kind: type[SectionT], path: Path, name: str) -> SectionT:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: '{name}': {error}", fix="measure the artifact again") from error


def _evidence(
    folder: Path, identity: SubjectIdentity, accuracy: Accuracy | None
) -> Evidence | None:
    """What lies beside the report, where it is of the same validation."""
    validation = evidence.read(folder)
    if validation is None or accuracy is None or validation.about.files != identity.files:
        return None
    recorded = (validation.about.metric, validation.about.data, len(validation.per_image.digests))
    return validation if recorded == (accuracy.metric, accuracy.data, accuracy.n) else None

"""Limits kept in the repository: vitedge.toml, or [tool.vitedge.gate] of pyproject.toml."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from vitedge.core.errors import InputError
from vitedge.core.spec import Spec
from vitedge.core.toml import convert, read_toml
from vitedge.core.trust import Trust, trust_of
from vitedge.gate.limits import Limits, active_limits

FILE, PROJECT = "vitedge.toml", "pyproject.toml"


class Artifact(Limits, frozen=True, kw_only=True):
    """`[[gate.artifacts]]`: some artifacts, and limits in place of the gate's own."""

    path: str
    """A bundle or a report, relative to the file; `*` stands for any name."""
    data: str = ""
    """Images to validate on first, relative to the file; empty: what the report says counts."""


class Gate(Limits, frozen=True, kw_only=True):
    """`[gate]`: limits for all, and which artifacts."""

    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    """One-sided, of each limit."""
    baseline: str = ""
    """The file of what was accepted last, relative to this one."""
    artifacts: tuple[Artifact, ...] = ()


class TrustSettings(Spec, frozen=True, kw_only=True):
    """`[trust]`: whose artifacts and reports count."""

    keys: str = ""
    """A public key or a folder of them, relative to the file; empty: anybody's."""
    accepted: str = ""
    """The file of what was accepted before, likewise; empty: none."""


class GateSettings(Spec, frozen=True, kw_only=True):
    """vitedge.toml."""

    gate: Gate = Gate()
    trust: TrustSettings = TrustSettings()


@dataclass(frozen=True)
class Config:
    """The gate's settings, and the folder that their paths start from."""

    gate: Gate
    folder: Path
    trust: TrustSettings = field(default_factory=TrustSettings)

    def trusted(self, keys: Path | None, accepted: Path | None) -> Trust | None:
        """The keys to trust, those given before those of the file. Raises InputError."""
        if keys is None and self.trust.keys:
            keys = self.folder / self.trust.keys
        if accepted is None and self.trust.accepted:
            accepted = self.folder / self.trust.accepted
        return trust_of(keys, accepted)

    def baseline(self) -> Path | None:
        return self.folder / self.gate.baseline if self.gate.baseline else None

    def data(self, entry: Artifact) -> str:
        """Where an entry's images are; a name such as `digits` stays one."""
        path = self.folder / entry.data
        return str(path) if entry.data and path.exists() else entry.data

    def artifacts(self) -> list[tuple[Path, Artifact]]:
        """Every artifact named, each once. Raises InputError for a name nothing goes by."""
        entries: dict[Path, Artifact] = {}
        for entry in self.gate.artifacts:
            paths = self._paths(entry)
            if not paths:
                raise InputError(
                    f"the gate's artifact '{entry.path}' is not there",
                    fix="make it with 'vitedge export', or take it out of the file",
                )
            entries |= {path: entry for path in paths if path not in entries}
        return list(entries.items())

    def entry(self, path: Path) -> Artifact:
        """The first entry that names an artifact, else that names its folder or a report in it.

        One that asks for nothing of its own where none does.
        """
        named = [
            (_real(artifact), entry)
            for entry in self.gate.artifacts
            for artifact in self._paths(entry)
        ]
        resolved = _real(path)
        exact = [entry for artifact, entry in named if artifact == resolved]
        beside = [entry for artifact, entry in named if _folder(artifact) == _folder(resolved)]
        return next(iter(exact + beside), Artifact(path=str(path)))

    def _paths(self, entry: Artifact) -> list[Path]:
        """What is there by that name. Raises InputError for one that nothing can go by."""
        pattern = Path(entry.path)
        folder = Path(pattern.anchor) if pattern.is_absolute() else self.folder
        try:
            if pattern == Path(pattern.anchor):
                raise ValueError("it names nothing")
            return sorted(folder.glob(str(pattern.relative_to(pattern.anchor))))
        except (ValueError, IndexError, NotImplementedError, OSError) as error:
            raise InputError(
                f"the gate's artifact '{entry.path}' is no path: {error}",
                fix="name a folder or a report; * stands for any name",
            ) from error


def _real(path: Path) -> Path:
    """Where a path leads; `resolve` raises RuntimeError where links go in a circle."""
    return Path(os.path.realpath(path))


def _folder(path: Path) -> Path:
    return path.parent if path.is_file() else path


def load(path: Path | None) -> Config:
    """Read the file given; else vitedge.toml, else pyproject.toml, of the folder one is in.

    Raises InputError for a file that is not there or says what no gate knows.
    """
    paths = [path] if path else [Path(name) for name in (FILE, PROJECT) if Path(name).is_file()]
    for file in paths:
        if settings := _settings(file):
            return Config(settings.gate, file.parent, settings.trust)
    if path:
        raise InputError(f"{path} has no [tool.vitedge.gate]", fix="put the limits there")
    return Config(Gate(), Path())


def _settings(path: Path) -> GateSettings | None:
    """None where a pyproject.toml does not mention it."""
    content: Any = read_toml(path)
    where = str(path)
    if path.name == PROJECT:
        tool = content.get("tool")
        content = tool.get("vitedge") if isinstance(tool, dict) else None
        if content is None:
            return None
        where = f"{path}, [tool.vitedge]"
    settings = convert(content, GateSettings, where)
    gate = settings.gate
    tables = [("gate", gate), *(("gate.artifacts", artifact) for artifact in gate.artifacts)]
    for table, limits in tables:
        for name, value in active_limits(limits).items():
            if not math.isfinite(value):
                raise InputError(f"{where}: {table}.{name} {value} is no limit", fix=_NUMBER)
    return settings


def options(values: Mapping[str, float | None]) -> Limits:
    """Limits as parameters are given. Raises InputError for a value that is no limit."""
    limits = Limits(**values)
    for name, value in active_limits(limits).items():
        what = f"`{name}={value:g}` is no limit"
        try:
            msgspec.convert({name: value}, Limits)
        except msgspec.ValidationError as error:
            allowed = str(error).partition(" - at")[0].replace("`", "").lower()
            raise InputError(f"{what}: {allowed}", fix=_NUMBER) from error
        if not math.isfinite(value):
            raise InputError(what, fix=_NUMBER)
    return limits


_NUMBER = "give a number"

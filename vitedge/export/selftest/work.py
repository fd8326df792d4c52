"""What the steps of a selftest share, and what each gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitedge.core.bundle import Bundle, open_bundle
from vitedge.core.host import Host
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.export.selftest.record import BUNDLES
from vitedge.export.selftest.subjects import Subject


@dataclass(frozen=True)
class Outcome:
    """What a step that passed came to; one that fails raises."""

    says: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Work:
    """One selftest under way."""

    folder: Path
    """Of the evidence."""
    target: Target
    asked: str
    """The target as the user named it: its name, or its file."""
    host: Host
    subjects: Sequence[Subject]
    steps: Steps
    _opened: dict[str, Bundle] = field(default_factory=dict)

    @property
    def artifacts(self) -> Path:
        """Where they lie."""
        return self.folder / BUNDLES

    def bundle(self, subject: Subject) -> Bundle:
        """The artifact, verified once. Raises InputError."""
        if subject.place not in self._opened:
            self._opened[subject.place] = open_bundle(self.artifacts / subject.place)
        return self._opened[subject.place]

    def forget(self) -> None:
        """Open artifacts anew: they were made again."""
        self._opened.clear()

    def of(self, model: str, build: str = "") -> list[Subject]:
        """The artifacts of a model, or of one of its exports."""
        return [s for s in self.subjects if s.model == model and build in ("", s.build)]

"""Hostile inputs made by a seed: what a file of ours or another's may hold that it should not.

Half of them are bundles whose hashes are right: whoever alters a file can seal it anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.hostile import bundles, files

Make = Callable[[random.Random, Path], object]
"""Alters a whole bundle in a folder, or writes a file there and returns what reads it."""


@dataclass(frozen=True)
class Case:
    """One input: the `number`-th of its class."""

    kind: str
    number: int
    seed: int

    @property
    def sealed(self) -> bool:
        """Whether it is a bundle whose manifest has the hashes of what is in it."""
        return self.kind in bundles.SEALED

    def attempt(self, base: bundles.Base, folder: Path) -> str:
        """Make it in the empty `folder`, and read it: 'refused' or 'harmless'.

        Raises AssertionError, or whatever else than a VitedgeError a reader raises.
        """
        chance = random.Random(f"{self.seed}/{self.kind}/{self.number}")
        if self.kind in bundles.KINDS:
            return bundles.attempt(bundles.KINDS[self.kind], chance, base, folder)
        return files.attempt(files.KINDS[self.kind], chance, folder)


def cases(count: int, seed: int) -> Iterator[Case]:
    """So many, half of them sealed, the classes of each half in turn."""
    sealed = list(bundles.SEALED)
    open_kinds = [kind for kind in (*bundles.KINDS, *files.KINDS) if kind not in bundles.SEALED]
    for index in range(count):
        kinds = sealed if index % 2 == 0 else open_kinds
        turn = index // 2
        yield Case(kinds[turn % len(kinds)], turn // len(kinds), seed)

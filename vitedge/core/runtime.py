"""The seam between vitedge and a runtime: build an artifact, open it, run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from vitedge.core.manifest import Build
from vitedge.core.spec import Target

Progress = Callable[[str, float, float], None]
"""Called with what is going on, how much of it is done, and how much there is."""


class TensorSpec(NamedTuple):
    """One input or output of a model."""

    name: str
    shape: tuple[int | None, ...]
    """None marks the dynamic batch dimension."""
    dtype: str
    """numpy's name, e.g. `uint8`."""


class Session(Protocol):
    """A model loaded and ready on its device."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns when the outputs are on the host."""
        ...


class Backend(Protocol):
    """One runtime."""

    name: str

    def build(self, model: Path, target: Target, out: Path, progress: Progress) -> Build | None:
        """Lower the ONNX file `model` for `target` into the folder `out`.

        Returns what came of compiling an engine; None where the runtime has none.
        """
        ...

    def open(self, bundle: Path, target: Target) -> AbstractContextManager[Session]:
        """Load the model in the folder `bundle`. The caller has verified the files' hashes."""
        ...

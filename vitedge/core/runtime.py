"""The seam between vitedge and a runtime: one record says all there is to know of it.

Runtimes are entry points of the group `vitedge.runtimes`, ours and a third party's alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from vitedge.core.errors import InputError, UnavailableError, error_line
from vitedge.core.manifest import Build, Consequence, Manifest
from vitedge.core.spec import Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vitedge.core.host import Host

ENTRY_POINTS = "vitedge.runtimes"
_log = logging.getLogger(__name__)

Progress = Callable[[str, float, float], None]
"""Called with what is going on, how much of it is done, and how much there is."""
Processor = Literal["cpu", "gpu", "npu", "browser"]


class TensorSpec(NamedTuple):
    """One input or output of a model."""

    name: str
    shape: tuple[int | None, ...]
    """None marks the dynamic batch dimension."""
    dtype: str
    """numpy's name, e.g. `uint8`."""


class Session(Protocol):
    """A model loaded and ready on its processor."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; returns when the outputs are on the host."""
        ...


@runtime_checkable
class SelfTimed(Protocol):
    """A session that computes elsewhere and times its runs there: the way to it is not theirs."""

    def time(self, feed: Mapping[str, NDArray[Any]], runs: int) -> NDArray[np.float64]:
        """Run `runs` times, one after the other; the latency of each, milliseconds."""
        ...


Complaint = tuple[str | None, str]
"""The node (empty or None: the whole graph), and what is wrong with it."""
Find = Callable[[Any, Target], Iterator[Complaint]]
"""From a `vitedge.graph.structure.Structure` and the target it is for."""


@dataclass(frozen=True)
class Rule:
    """One known trap of a runtime: how to find it in a graph, what it costs, and the way out."""

    id: str
    consequence: Consequence
    fix: str
    find: Find


@dataclass(frozen=True)
class VerifiedFiles:
    """The files of a bundle that its runtime loads, whose hashes have been checked."""

    folder: Path
    names: tuple[str, ...]
    allow_host_code: bool = False
    """Whether the user lets an engine among them run code of its own."""

    def path(self, name: str) -> Path:
        """Where the file `name` lies. Raises InputError for a file that was not verified."""
        if name not in self.names:
            raise InputError(f"{self.folder} has no {name}", fix="export it again")
        return self.folder / name


@runtime_checkable
class Runtime(Protocol):
    """One runtime. A class with these members, made without arguments, is all that is needed."""

    name: str
    """As targets, entry points and bundles name it."""
    title: str
    """As people write it, e.g. `ONNX Runtime`."""
    packages: tuple[str, ...]
    """The distributions that may bring it; the version of the first installed one is its own."""
    extra: str
    """The extra that brings it, of the distribution that registers it; ours: `vitedge[EXTRA]`."""
    processor: Processor
    """What it computes on."""
    options: frozenset[str]
    """What `[options]` of a target may set; nothing else reaches the runtime."""

    def probe(self, host: Host) -> str:
        """What it needs that the machine `host` lacks, packages aside; empty: it can run."""
        ...

    def accelerator(self, host: Host) -> str:
        """What of the machine `host` computes in the CPU's place; empty: nothing does."""
        ...

    def rules(self) -> tuple[Rule, ...]:
        """What it does not take well in a graph, worst first."""
        ...

    def files(self, manifest: Manifest) -> tuple[str, ...]:
        """Which files of a bundle it loads."""
        ...

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> Build | None:
        """Lower the ONNX file `model` for `target` into the folder `out`.

        Returns what came of compiling an engine; None where the runtime has none. An engine that
        only the device can make waits for it, unless `model` lies in `out` already: then it is
        wanted now.
        Raises InputError and LimitError where the model is not taken, UnavailableError where what
        it takes is missing.
        """
        ...

    def open(self, verified: VerifiedFiles, target: Target) -> AbstractContextManager[Session]:
        """Load the model in `verified` on `target.threads` threads, with the target's options."""
        ...


class Executed(NamedTuple):
    """What a runtime executes of a graph, after its own fusions."""

    quantized: int
    """Operators with multiply-accumulates that it runs in INT8 or FP8."""
    products: int
    """All of them; attention that is one kernel of floats is not counted by every runtime."""


@runtime_checkable
class Examinable(Protocol):
    """A runtime that can tell what it executes. None has to."""

    def executed(self, verified: VerifiedFiles, target: Target) -> Executed:
        """Load the model in `verified` as `Runtime.open` does, and count."""
        ...


@runtime_checkable
class Occupiable(Protocol):
    """A runtime whose processor has memory of its own that can be taken. None has to."""

    def occupied(self) -> AbstractContextManager[None]:
        """Take all of that memory that is free while the block runs."""
        ...


@runtime_checkable
class SelfInstalled(Protocol):
    """A runtime of which pip does not bring all."""

    def lacking(self) -> UnavailableError | None:
        """What it takes that is not here, and how to get it; None where all is."""
        ...


class Registration(NamedTuple):
    """A runtime, and who brings it."""

    runtime: Runtime
    distribution: str
    """Name of the distribution whose entry point it is."""


@cache
def registrations() -> Mapping[str, Registration]:
    """Every runtime that is registered and loads, by its name, in the order of names.

    One that does not load is left out and named in a warning: it must not keep others from use.
    Raises UnavailableError where vitedge itself is not installed.
    """
    loaded: dict[str, Registration] = {}
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        try:
            value = entry.load()
            runtime = value() if isinstance(value, type) else value
            if not isinstance(runtime, Runtime):
                raise TypeError("it lacks members of vitedge.core.runtime.Runtime")
            if runtime.name != entry.name:
                raise ValueError(f"it calls itself '{runtime.name}'")
            if entry.name in loaded:
                raise ValueError(f"{loaded[entry.name].distribution} registers that name, too")
        except Exception as error:  # whatever a third party's module raises
            _log.warning("note: runtime '%s' does not load: %s", entry.name, error_line(error))
            continue
        loaded[entry.name] = Registration(runtime, entry.dist.name if entry.dist else "")
    if not loaded:
        raise UnavailableError(
            "no runtime is registered: vitedge is imported, but not installed",
            fix="pip install vitedge; from a checkout: pip install -e .",
        )
    return loaded


def runtimes() -> Mapping[str, Runtime]:
    """Every runtime by its name. Raises UnavailableError as `registrations` does."""
    return {name: registration.runtime for name, registration in registrations().items()}


def is_ours(runtime: Runtime) -> bool:
    """Whether vitedge itself brings a runtime, and no other distribution."""
    return registrations()[runtime.name].distribution == "vitedge"


def requirement(runtime: Runtime) -> str:
    """What pip installs to bring a runtime and what it needs: `vitedge[openvino]`."""
    distribution = registrations()[runtime.name].distribution
    return f"{distribution}[{runtime.extra}]" if runtime.extra else distribution


def runtime_of(target: Target) -> Runtime:
    """The runtime of `target`. Raises UnavailableError where it is not registered here."""
    runtime = runtimes().get(target.runtime)
    if runtime is None:
        raise UnavailableError(
            f"the runtime '{target.runtime}' of target '{target.name}' is not known here",
            fix=f"install the package that brings it; there are {', '.join(runtimes())}",
        )
    return runtime

"""The runtimes: one module or folder each, and how a verified bundle is opened on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vitedge.core import catalog
from vitedge.core.bundle import ENGINE, Bundle
from vitedge.core.complaints import RuntimeFailure, complaint
from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.manifest import Build
from vitedge.core.runtime import (
    Examinable,
    Executed,
    Progress,
    Runtime,
    SelfInstalled,
    SelfTimed,
    Session,
    TensorSpec,
    VerifiedFiles,
    is_ours,
    requirement,
    runtime_of,
    runtimes,
)
from vitedge.core.spec import Target
from vitedge.runtimes.onnxruntime import ONNXRuntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
TOOLS = ("vitedge", "torch", "timm", "transformers", "torchvision", "onnx", "onnxscript")
SIMULATOR = ONNXRuntime()
"""Runs the graph of any bundle on the CPU, as it is written."""
_ANOTHER = "try another precision, target or version of the runtime, and report it with the model"


def runs_here(bundle: Bundle) -> bool:
    """Whether this machine computes what the bundle says, and its engine is there."""
    build, target = bundle.manifest.build, bundle.manifest.target
    if (build and build.state != "done") or without_bf16(bundle):
        return False
    machine = describe_machine(threads=0)
    return not (catalog.lacks_hardware(target, machine) or catalog.lacks_version(target, machine))


def without_bf16(bundle: Bundle) -> str:
    """What this machine lacks to compute the floats of `bundle` in BF16, as its manifest says.

    Empty where nothing is lacking. It runs all the same, in FP32, and is compared with nothing.
    """
    if not bundle.manifest.computes_bf16:
        return ""
    return catalog.lacks_bf16(bundle.manifest.target, describe_machine(threads=0))


@cache
def _warn_once(note: str) -> None:
    _log.warning(note)


@contextmanager
def simulate(bundle: Bundle, graph: Path) -> Iterator[Session]:
    """Load `graph`, the ONNX file of a bundle, on ONNX Runtime's CPU, whatever it was built for.

    It computes what the graph says: Q and DQ round, and what lies between is float.
    """
    target = msgspec.structs.replace(
        bundle.manifest.target,
        threads=usable_cores(),
        options={"session.disable_quant_qdq": "1", "session.force_spinning_stop": "1"},
    )
    with ExitStack() as stack:
        what = f"{SIMULATOR.title} cannot load the graph of {bundle.path}"
        with _explained(SIMULATOR, what, _ANOTHER):
            session = stack.enter_context(SIMULATOR.open_file(graph, target))
        yield _CheckedSession(session, SIMULATOR, bundle)


@contextmanager
def open_session(bundle: Bundle, threads: int = 0) -> Iterator[Session]:
    """Load a verified bundle on `threads` threads (0: every core this process may use).

    Raises UnavailableError where this machine lacks what the artifact was built for: kernels
    for other CPUs would run, and compute something else. Raises InputError where the runtime
    does not take the model or the target's options, and where an engine would run code of its
    own that was not allowed.
    """
    target = bundle.manifest.target
    _check_host_code(bundle)
    machine = describe_machine(threads=0)
    runtime = runtime_of(target)
    if isinstance(runtime, SelfInstalled) and (lacking := runtime.lacking()):
        raise lacking
    if needs := catalog.lacks_hardware(target, machine):
        raise UnavailableError(
            f"{bundle.path} was built for '{target.name}' ({needs}); this machine "
            f"({machine.machine}) is not that",
            fix="run it on such a device, or export for this one: 'vitedge targets list'",
        )
    if needs := catalog.lacks_version(target, machine):
        raise UnavailableError(
            f"{bundle.path} was built for '{target.name}', which takes {needs}",
            fix="install such a version, or export again for a target that takes this one",
        )
    catalog.check_options(target)
    threads = threads or target.threads or usable_cores()
    verified = VerifiedFiles(
        bundle.runnable, runtime.files(bundle.manifest), bundle.allows_host_code
    )
    if needs := without_bf16(bundle):
        _warn_once(f"note: {bundle.path} computes its floats in FP32 here, for want of {needs}")
    elif bundle.manifest.computes_bf16:
        options = target.options | target.bf16_options
        target = msgspec.structs.replace(target, options=options)
    with ExitStack() as stack:
        with _explained(
            runtime,
            f"{target.runtime} cannot load {bundle.path}",
            f"check the options of target '{target.name}'; {_ANOTHER}",
        ):
            opened = runtime.open(verified, msgspec.structs.replace(target, threads=threads))
            session = stack.enter_context(opened)
        checked = _CheckedTimedSession if isinstance(session, SelfTimed) else _CheckedSession
        yield checked(session, runtime, bundle)


def executed(bundle: Bundle) -> Executed | None:
    """What the runtime of `bundle` executes of it here; None where it does not tell.

    Raises as `open_session` does.
    """
    target, runtime = bundle.manifest.target, runtime_of(bundle.manifest.target)
    if not isinstance(runtime, Examinable):
        return None
    if bundle.manifest.computes_bf16 and not without_bf16(bundle):
        target = msgspec.structs.replace(target, options=target.options | target.bf16_options)
    verified = VerifiedFiles(
        bundle.runnable, runtime.files(bundle.manifest), bundle.allows_host_code
    )
    with _explained(runtime, f"{runtime.title} cannot load {bundle.path}", _ANOTHER):
        return runtime.executed(verified, target)


def _check_host_code(bundle: Bundle) -> None:
    """Raise InputError where an engine would run code of its own, and nobody has allowed that.

    Such an engine brings the runtime that it was built with, as a program.
    """
    asks = bundle.manifest.target.compile.version_compatible and ENGINE in bundle.manifest.files
    if asks and not (bundle.allows_host_code or bundle.is_private):
        raise InputError(
            f"the engine of {bundle.path} runs code of its own on this machine "
            "(version_compatible)",
            fix="if you trust who built it, open it with `allow_host_code=True`",
        )


class _CheckedSession:
    """A session that says in one message what its runtime raises in a run, main output first."""

    def __init__(self, session: Session, runtime: Runtime, bundle: Bundle) -> None:
        """Raises InputError where `session` lacks an output of the manifest's."""
        self.inputs, self.outputs = session.inputs, _in_order(session, bundle)
        self._run, self._runtime = session.run, runtime
        self._what = f"{runtime.title} cannot run {bundle.path}"

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            return self._run(feed)
        except Exception:
            with _explained(self._runtime, self._what, _ANOTHER):
                raise


class _CheckedTimedSession(_CheckedSession):
    """The same of a session that times itself."""

    def __init__(self, session: Any, runtime: Runtime, bundle: Bundle) -> None:
        super().__init__(session, runtime, bundle)
        self._time = session.time

    def time(self, feed: Mapping[str, NDArray[Any]], runs: int) -> NDArray[np.float64]:
        with _explained(self._runtime, self._what, _ANOTHER):
            times: NDArray[np.float64] = self._time(feed, runs)
            return times


def _in_order(session: Session, bundle: Bundle) -> tuple[TensorSpec, ...]:
    """The outputs of `session` in the order of its manifest."""
    names = [output.name for output in bundle.manifest.outputs]
    given = {spec.name: spec for spec in session.outputs}
    if len(names) <= 1 and len(given) == 1:  # which may be called otherwise
        return session.outputs
    if missing := [name for name in names if name not in given]:
        raise InputError(
            f"{bundle.path} gives {', '.join(given)} on {bundle.manifest.target.runtime}, and not "
            f"{', '.join(missing)}",
            fix="export it again; a runtime must keep the names of outputs",
        )
    return tuple(given[name] for name in names)


def lower(model: Path, target: Target, out: Path, progress: Progress) -> Build | None:
    """Lower the ONNX file `model` for `target` into the folder `out`, by its runtime.

    Raises what `Runtime.lower` does; whatever else a runtime raises becomes an InputError.
    """
    runtime = runtime_of(target)
    with _explained(runtime, f"{runtime.title} cannot lower the model", _ANOTHER):
        return runtime.lower(model, target, out, progress)


@contextmanager
def _explained(runtime: Runtime, what: str, fix: str) -> Iterator[None]:
    """One message for whatever a runtime raises: each has errors of its own."""
    try:
        yield
    except (VitedgeError, OSError):
        raise
    except ImportError as error:
        raise UnavailableError(
            f"{what}: {error_line(error)}", fix=f"pip install '{requirement(runtime)}'"
        ) from error
    except Exception as error:
        raise RuntimeFailure(f"{what}: {complaint(error)}", fix=fix) from error


def tool_versions(target: Target, *further: str) -> dict[str, str]:
    """The versions of what has a hand in an artifact of `target`, and of `further` packages."""
    runtime = runtime_of(target)
    packages = [r.packages for r in runtimes().values() if r.processor == "cpu" and is_ours(r)]
    packages += [] if is_ours(runtime) else [runtime.packages]
    tools = {}
    for name in (*TOOLS, *chain.from_iterable(packages), "numpy", "pillow", *further):
        with suppress(metadata.PackageNotFoundError):
            tools[name] = metadata.version(name)
    return tools

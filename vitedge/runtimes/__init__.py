"""The runtimes: one module or folder each, and how a verified bundle is opened on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from itertools import chain
from pathlib import Path

import msgspec

from vitedge.core import catalog
from vitedge.core.bundle import MODEL, Bundle
from vitedge.core.commands import command
from vitedge.core.errors import InputError, UnavailableError, VitedgeError, error_line
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.manifest import Build
from vitedge.core.runtime import (
    Progress,
    Runtime,
    Session,
    VerifiedFiles,
    is_ours,
    requirement,
    runtime_of,
    runtimes,
)
from vitedge.core.spec import Target
from vitedge.runtimes.onnxruntime import ONNXRuntime

TOOLS = ("vitedge", "torch", "timm", "transformers", "torchvision", "onnx", "onnxscript")
SIMULATOR = ONNXRuntime()
"""Runs the graph of any bundle on the CPU, as it is written."""


def runs_here(bundle: Bundle) -> bool:
    """Whether this machine is what the bundle's target needs, and its engine is there."""
    build = bundle.manifest.build
    built = build is None or build.state == "done"
    return built and catalog.runs_on(bundle.manifest.target, describe_machine(threads=0))


@contextmanager
def simulate(bundle: Bundle) -> Iterator[Session]:
    """Load the ONNX graph of a verified bundle on ONNX Runtime's CPU, whatever it was built for.

    It computes what the graph says: Q and DQ round, and what lies between is float.
    """
    target = msgspec.structs.replace(
        bundle.manifest.target,
        threads=usable_cores(),
        options={"session.disable_quant_qdq": "1", "session.force_spinning_stop": "1"},
    )
    names = tuple(name for name in bundle.model_files if name.startswith(MODEL))
    with SIMULATOR.open(VerifiedFiles(bundle.path, names), target) as session:
        yield session


@contextmanager
def open_session(bundle: Bundle, threads: int = 0) -> Iterator[Session]:
    """Load a verified bundle on `threads` threads (0: every core this process may use).

    Raises UnavailableError where this machine lacks what the artifact was built for: kernels
    for other CPUs would run, and compute something else. Raises InputError where the runtime
    does not take the model or the target's options.
    """
    target = bundle.manifest.target
    machine = describe_machine(threads=0)
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
    runtime = runtime_of(target)
    verified = VerifiedFiles(bundle.path, runtime.files(bundle.manifest))
    with ExitStack() as stack:
        with _explained(
            runtime,
            f"{target.runtime} cannot load {bundle.path}",
            f"check the options of target '{target.name}', and export it again",
        ):
            opened = runtime.open(verified, msgspec.structs.replace(target, threads=threads))
            session = stack.enter_context(opened)
        yield session


def lower(model: Path, target: Target, out: Path, progress: Progress) -> Build | None:
    """Lower the ONNX file `model` for `target` into the folder `out`, by its runtime.

    Raises what `Runtime.lower` does; whatever else a runtime raises becomes an InputError.
    """
    runtime = runtime_of(target)
    fix = f"see {command('inspect', model.name)} with `target={target.name!r}`"
    with _explained(runtime, f"{runtime.title} cannot lower the model", fix):
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
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{what}: {reason}", fix=fix) from error


def tool_versions(target: Target) -> dict[str, str]:
    """The versions of everything that has a hand in an artifact of `target`."""
    runtime = runtime_of(target)
    packages = [r.packages for r in runtimes().values() if r.processor == "cpu" and is_ours(r)]
    packages += [] if is_ours(runtime) else [runtime.packages]
    tools = {}
    for name in (*TOOLS, *chain.from_iterable(packages), "numpy", "pillow"):
        with suppress(metadata.PackageNotFoundError):
            tools[name] = metadata.version(name)
    return tools

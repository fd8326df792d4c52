"""Which TensorRT is installed, and what keeps it from building an engine on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from vitedge.core import catalog
from vitedge.core.errors import UnavailableError, error_line, missing
from vitedge.core.host import Host
from vitedge.core.runtime import runtime_of, runtimes
from vitedge.core.spec import Target

_JETSON = "a Jetson has it from JetPack: use a virtual environment with --system-site-packages"


@dataclass(frozen=True)
class Obstacle:
    """Why no engine can be built here, and what to do about it."""

    why: str
    fix: str


def load(name: str) -> Any:
    """The Python package of a runtime. Raises UnavailableError where it is missing or broken."""
    runtime = runtimes()[name]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing(error.name or name, runtime.extra) from error
    except (ImportError, OSError, RuntimeError) as error:  # its libraries do not load
        raise UnavailableError(
            f"{runtime.title} is installed but does not load: {error_line(error)}",
            fix=f"pip install --force-reinstall 'vitedge[{runtime.extra}]'",
        ) from error


def obstacle(target: Target, machine: Host) -> Obstacle | None:
    """What keeps an engine for `target` from being built on `machine`; None if nothing.

    TensorRT builds on the GPU that the engine is for. TensorRT-RTX needs none, unless weights are
    to be replaced in the engine later.
    """
    runtime = runtime_of(target)
    title, extra, low = runtime.title, runtime.extra, target.versions[0]
    ahead_of_time = target.runtime == "tensorrt_rtx" and target.compile.weights == "inside"
    if not ahead_of_time and (lacking := _lacking(target, machine)):
        install = f"pip install 'vitedge[{extra}]'"
        how = f"{install}; {_JETSON}" if target.runtime == "tensorrt" else install
        version = f"{title} {low} or newer" if low else title
        fix = f"run 'vitedge build' on the device, with {version} ({how})"
        if len(machine.gpus) > 1:
            fix += "; CUDA_VISIBLE_DEVICES says which GPU is the first"
        return Obstacle(lacking, fix)
    try:
        package = load(target.runtime)
    except UnavailableError as error:
        how = f"{error.fix}; {_JETSON}" if target.runtime == "tensorrt" else error.fix
        installed = importlib.util.find_spec(target.runtime) is not None
        return Obstacle(error.what if installed else f"{title} is not installed", how)
    if not catalog.in_range(package.__version__, target.versions):
        return Obstacle(
            f"{title} {package.__version__} is out of range: the target '{target.name}' takes "
            f"{low} to before {target.versions[1]}",
            f"pip install '{extra}>={low},<{target.versions[1]}'",
        )
    return None


def _lacking(target: Target, machine: Host) -> str:
    """What this machine is not that `target` is built on; empty where it is."""
    if not catalog.lacks_hardware(target, machine):
        return ""
    if machine.machine not in target.machines:
        return f"this machine is {machine.machine}, and the target {' or '.join(target.machines)}"
    if not machine.gpus:
        return "this machine has no NVIDIA GPU"
    capabilities, gpu = " or ".join(target.compute_capabilities), machine.gpus[0]
    return (
        f"the GPU here, {gpu.name}, has compute capability {gpu.compute_capability}, "
        f"and the target needs {capabilities}"
    )

"""Which TensorRT is installed, and what keeps it from building an engine on this machine."""

from __future__ import annotations

import importlib.util

from vitedge.core import catalog
from vitedge.core.errors import UnavailableError
from vitedge.core.host import Host
from vitedge.core.runtime import runtime_of
from vitedge.core.spec import Target
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt import TensorRT


def engine_runtime(target: Target) -> TensorRT:
    """The runtime of a target of TensorRT or TensorRT-RTX."""
    runtime = runtime_of(target)
    assert isinstance(runtime, TensorRT)
    return runtime


def obstacle(target: Target, machine: Host) -> UnavailableError | None:
    """What keeps an engine for `target` from being built on `machine`; None if nothing.

    TensorRT builds on the GPU that the engine is for. TensorRT-RTX needs none, unless weights are
    to be replaced in the engine later.
    """
    runtime, (low, end) = engine_runtime(target), target.versions
    needs_gpu = not runtime.ahead_of_time or target.compile.weights != "inside"
    if needs_gpu and (lacking := _lacking(target, machine)):
        version = f"{runtime.title} {low} or newer" if low else runtime.title
        install = f"pip install 'vitedge[{runtime.extra}]'{runtime.install_hint}"
        fix = f"run 'vitedge build' on the device, with {version} ({install})"
        if len(machine.gpus) > 1:
            fix += "; CUDA_VISIBLE_DEVICES says which GPU is the first"
        return UnavailableError(lacking, fix=fix)
    try:
        version = load(target.runtime).__version__
    except UnavailableError as error:
        installed = importlib.util.find_spec(target.runtime) is not None
        what = error.what if installed else f"{runtime.title} is not installed"
        return UnavailableError(what, fix=f"{error.fix}{runtime.install_hint}")
    if not catalog.in_range(version, target.versions):
        return UnavailableError(
            f"{runtime.title} {version} is out of range: the target '{target.name}' takes "
            f"{low} to before {end}",
            fix=f"pip install '{runtime.extra}>={low},<{end}'",
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

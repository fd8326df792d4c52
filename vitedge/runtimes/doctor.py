"""What this machine can run, and what is missing for the rest."""

from __future__ import annotations

from importlib import metadata

import msgspec

from vitedge.core import catalog, host
from vitedge.core.gpu import Gpu
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.runtime import Runtime, requirement, runtime_of, runtimes
from vitedge.core.spec import Target

_LIBRARIES = {  # package -> (what it is for, the extra that brings it)
    "cuda-bindings": ("run artifacts on an NVIDIA GPU", "tensorrt"),
    "torch": ("export", "export"),
    "onnx": ("export", "export"),
    "onnxscript": ("export", "export"),
    "safetensors": ("export", "export"),
}


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked for."""

    name: str
    status: str
    """`yes` or `no`."""
    detail: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Everything looked for."""

    machine: str
    host: host.Host
    checks: tuple[Requirement, ...]


def examine() -> Diagnosis:
    """Look at packages, GPUs and targets; nothing heavy is imported."""
    machine = describe_machine(threads=usable_cores())
    checks = [
        *(_runtime(runtime, machine) for runtime in runtimes().values()),
        *(_library(*row) for row in _LIBRARIES.items()),
        _gpus(machine.gpus),
        *(_target(target, machine) for target in catalog.targets().values()),
    ]
    isa = " ".join(machine.isa or ()) or "no INT8 features known"
    summary = f"{machine.cpu}, {machine.cores} cores, {isa}; {machine.os}"
    return Diagnosis(machine=summary, host=machine, checks=tuple(checks))


def _runtime(runtime: Runtime, machine: Host) -> Requirement:
    """Whether a runtime is installed; one that needs no package always is."""
    if version := machine.runtimes.get(runtime.name):
        return Requirement(name=runtime.name, status="yes", detail=version)
    if not runtime.packages:
        return Requirement(name=runtime.name, status="yes", detail=f"runs {runtime.title}")
    purpose = f"run {runtime.title} artifacts"
    if runtime.processor == "gpu":
        purpose = f"build and {purpose} on an NVIDIA GPU"
    detail = f"to {purpose}: pip install '{requirement(runtime)}'"
    return Requirement(name=runtime.name, status="no", detail=detail)


def _library(package: str, use: tuple[str, str]) -> Requirement:
    """Whether a package that is no runtime is installed."""
    purpose, extra = use
    try:
        return Requirement(name=package, status="yes", detail=metadata.version(package))
    except metadata.PackageNotFoundError:
        detail = f"to {purpose}: pip install 'vitedge[{extra}]'"
        return Requirement(name=package, status="no", detail=detail)


def _target(target: Target, machine: Host) -> Requirement:
    """Whether artifacts of a shipped target run here."""
    name, runtime = f"target {target.name}", runtime_of(target)
    if needs := catalog.lacks(target, machine):
        return Requirement(name=name, status="no", detail=f"needs {needs}")
    if runtime.packages and target.runtime not in machine.runtimes:
        return Requirement(name=name, status="no", detail=f"needs {target.runtime}")
    return Requirement(name=name, status="yes", detail=target.description)


def _gpus(gpus: tuple[Gpu, ...]) -> Requirement:
    if not gpus:
        detail = (
            "no CUDA driver shows one; TensorRT engines are built on the device, or for RTX PCs"
        )
        return Requirement(name="NVIDIA GPU", status="no", detail=detail)
    names = [f"{gpu.name} ({gpu.compute_capability}, {gpu.memory_bytes >> 30} GiB)" for gpu in gpus]
    return Requirement(name="NVIDIA GPU", status="yes", detail=", ".join(names))

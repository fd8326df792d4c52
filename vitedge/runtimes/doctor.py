"""What this machine can run, and what is missing for the rest."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata

import msgspec

from vitedge.core import builds, catalog, host
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.machine import versions as machine_versions
from vitedge.core.runtime import Runtime, SelfInstalled, requirement, runtime_of, runtimes
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


def doctor() -> Diagnosis:
    """Look at packages, GPUs and targets; of what is heavy, OpenVINO alone is imported."""
    machine = describe_machine(threads=usable_cores())
    gpus = (
        f"{gpu.name} ({gpu.compute_capability}, {gpu.memory_bytes >> 30} GiB)"
        for gpu in machine.gpus
    )
    without = "no CUDA driver shows one; TensorRT engines are built on the device, or for RTX PCs"
    checks = [
        *(_runtime(runtime, machine) for runtime in runtimes().values()),
        _openvino_devices(),
        *(_library(package, *use) for package, use in _LIBRARIES.items()),
        _torchvision(),
        _requirement("NVIDIA GPU", ", ".join(gpus), without),
        *(_target(target, machine) for target in catalog.targets().values()),
    ]
    isa = " ".join(machine.isa or ()) or "no INT8 features known"
    summary = f"{machine.cpu}, {machine.cores} cores, {isa}; {machine.os}"
    if state := machine.jetson:
        mode = state.power_mode.name if state.power_mode else "unknown"
        varying = " and ".join(state.unlocked)
        summary += f"; {state.board or 'Jetson'}, power mode {mode}, " + (
            f"clocks of {varying} vary" if varying else "no clock known to vary"
        )
    return Diagnosis(machine=summary, host=machine, checks=tuple(checks))


def versions() -> dict[str, str]:
    """Version of each runtime that is installed, by its title, and of Python; none is imported."""
    installed = machine_versions()
    lines = {"Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    seen: set[tuple[str, ...]] = set()
    for name, runtime in runtimes().items():
        if name in installed and runtime.packages not in seen:
            seen.add(runtime.packages)
            lines[runtime.title] = installed[name]
    return lines


def _requirement(name: str, present: str, absent: str) -> Requirement:
    """What is there, or, where that is empty, what is not."""
    return Requirement(name=name, status="yes" if present else "no", detail=present or absent)


def _runtime(runtime: Runtime, machine: Host) -> Requirement:
    """Whether a runtime is installed; one that needs no package always is."""
    version = machine.runtimes.get(runtime.name)
    purpose = f"run {runtime.title} artifacts"
    if isinstance(runtime, SelfInstalled):
        lacking = runtime.lacking()
        absent = f"to {purpose}: {lacking.what}; {lacking.fix}" if lacking else ""
        return _requirement(runtime.name, runtime.accelerator(machine), absent)
    if needs := runtime.probe(machine):
        purpose += f" (it needs {needs})"
    return _requirement(
        runtime.name,
        version or ("" if runtime.packages else f"runs {runtime.title}"),
        f"to {purpose}: pip install '{requirement(runtime)}'",
    )


def _openvino_devices() -> Requirement:
    """What OpenVINO itself lists: a driver may be missing for what is in the machine."""
    from vitedge.runtimes.openvino import devices

    return _requirement("OpenVINO devices", ", ".join(devices()), "no OpenVINO is installed")


def _library(package: str, purpose: str, extra: str) -> Requirement:
    """Whether a package that is no runtime is installed."""
    version = ""
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version(package)
    return _requirement(package, version, f"to {purpose}: pip install 'vitedge[{extra}]'")


def _torchvision() -> Requirement:
    """Whether a torchvision is installed that fits torch, and the command that mends it if not."""
    name, version, misfit = "torchvision", builds.build("torchvision"), builds.misfit()
    if misfit:
        detail = f"{misfit}, for timm: and torchvision: models: {builds.mending()}"
        return Requirement(name=name, status="no", detail=detail)
    models = "load timm: and torchvision: models"
    return _requirement(name, version, f"to {models}: pip install 'vitedge[torchvision]'")


def _target(target: Target, machine: Host) -> Requirement:
    """Whether artifacts of a shipped target run here."""
    needs = catalog.lacks(target, machine)
    if not needs and runtime_of(target).packages and target.runtime not in machine.runtimes:
        needs = target.runtime
    present = "" if needs else target.description
    return _requirement(f"target {target.name}", present, f"needs {needs}")

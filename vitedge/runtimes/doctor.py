"""What this machine can run, and what is missing for the rest."""

from __future__ import annotations

from importlib import metadata

import msgspec

from vitedge.core import catalog, host
from vitedge.core.gpu import Gpu

_PACKAGES = {  # package -> (what it is for, the extra that brings it)
    "onnxruntime": ("run ONNX Runtime artifacts", "onnxruntime"),
    "openvino": ("run OpenVINO artifacts", "openvino"),
    "tensorrt": ("build and run TensorRT artifacts on an NVIDIA GPU", "tensorrt"),
    "tensorrt_rtx": ("build for RTX PCs, and check INT8 with no GPU", "tensorrt-rtx"),
    "cuda-bindings": ("run artifacts on an NVIDIA GPU", "tensorrt"),
    "torch": ("export", "export"),
    "onnx": ("export", "export"),
    "onnxscript": ("export", "export"),
    "safetensors": ("export", "export"),
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked for."""

    name: str
    status: str
    """`yes` or `no`."""
    detail: str


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything looked for."""

    machine: str
    host: host.Host
    checks: tuple[Check, ...]


def examine() -> Findings:
    """Look at packages, GPUs and targets; nothing heavy is imported."""
    here = host.describe(threads=host.usable_cores())
    installed = dict(here.runtimes)
    checks = []
    for package, (purpose, extra) in _PACKAGES.items():
        if package not in installed:
            try:
                installed[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                detail = f"to {purpose}: pip install 'vitedge[{extra}]'"
                checks.append(Check(name=package, status="no", detail=detail))
                continue
        checks.append(Check(name=package, status="yes", detail=installed[package]))
    checks.append(_gpu_check(here.gpus))
    for name, target in catalog.targets().items():
        if needs := catalog.lacks(target, here):
            check = Check(name=f"target {name}", status="no", detail=f"needs {needs}")
        elif target.runtime not in installed:
            check = Check(name=f"target {name}", status="no", detail=f"needs {target.runtime}")
        else:
            check = Check(name=f"target {name}", status="yes", detail=target.description)
        checks.append(check)
    isa = " ".join(here.isa or ()) or "no INT8 features known"
    machine = f"{here.cpu}, {here.cores} cores, {isa}; {here.os}"
    return Findings(machine=machine, host=here, checks=tuple(checks))


def _gpu_check(gpus: tuple[Gpu, ...]) -> Check:
    if not gpus:
        detail = (
            "no CUDA driver shows one; TensorRT engines are built on the device, or for RTX PCs"
        )
        return Check(name="NVIDIA GPU", status="no", detail=detail)
    found = [f"{gpu.name} ({gpu.compute_capability}, {gpu.memory_bytes >> 30} GiB)" for gpu in gpus]
    return Check(name="NVIDIA GPU", status="yes", detail=", ".join(found))

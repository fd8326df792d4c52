"""What this machine can run, and what is missing for the rest."""

from __future__ import annotations

from importlib import metadata

import msgspec

from vitedge import catalog, host

_PACKAGES = {  # package -> (what it is for, the extra that brings it)
    "onnxruntime": ("run ONNX Runtime artifacts", "onnxruntime"),
    "openvino": ("run OpenVINO artifacts", "openvino"),
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
    """Look at packages and targets; nothing heavy is imported."""
    here = host.describe(threads=host.usable_cores())
    checks = []
    installed = set()
    for package, (purpose, extra) in _PACKAGES.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            detail = f"to {purpose}: pip install 'vitedge[{extra}]'"
            checks.append(Check(name=package, status="no", detail=detail))
        else:
            installed.add(package)
            checks.append(Check(name=package, status="yes", detail=version))
    for name, target in catalog.targets().items():
        if not catalog.runs_on(target, here):
            needs = " or ".join(target.isa or target.machines)
            check = Check(name=f"target {name}", status="no", detail=f"needs {needs}")
        elif target.runtime not in installed:
            check = Check(name=f"target {name}", status="no", detail=f"needs {target.runtime}")
        else:
            check = Check(name=f"target {name}", status="yes", detail=target.description)
        checks.append(check)
    isa = " ".join(here.isa or ()) or "no INT8 features known"
    machine = f"{here.cpu}, {here.cores} cores, {isa}; {here.os}"
    return Findings(machine=machine, host=here, checks=tuple(checks))

"""The machine a number was measured on: without it, a latency means nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import msgspec

from vitedge.core import container
from vitedge.core.cpu import Clocking, clocking, identify
from vitedge.core.gpu import Gpu, gpus
from vitedge.core.runtime import runtimes

ROOT = Path("/")

INT8_DOT_PRODUCT = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
LIBRARIES = ("cuda-bindings", "torch", "onnx")
"""Recorded beside the runtimes; latency is not theirs."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, as a report records it. None: unknown on this system."""

    cpu: str
    isa: tuple[str, ...] | None
    """Those of `ISA` the CPU has."""
    accelerator: str | None
    """None: the CPU does the work."""
    os: str
    python: str
    runtimes: dict[str, str]
    """Version of each inference package installed."""
    threads: int
    """Inference threads used."""
    cores: int
    """Cores this process may use."""
    memory_bytes: int | None
    governor: str | None
    """CPU frequency governor; anything but `performance` makes latency wander."""
    machine: str
    """Architecture, as `platform.machine()` names it."""
    gpus: tuple[Gpu, ...] = ()
    """NVIDIA's; none in a report of an earlier vitedge."""
    clocking: Clocking = Clocking()
    cpu_quota: float | None = None
    """Cores the cgroup allows; None where it does not limit them."""
    memory_limit_bytes: int | None = None
    """What the cgroup allows of `memory_bytes`; None where it does not limit it."""
    container: str | None = None
    """`docker`, `podman`, `kubernetes`, `lxc`, …; None: no container."""


def describe(threads: int) -> Host:
    """Describe this machine, where inference runs on `threads` threads of the CPU."""
    cpu, isa = identify()
    clocks = clocking(ROOT)
    return Host(
        cpu=cpu,
        isa=isa,
        accelerator=None,
        os=_os(),
        python=platform.python_version(),
        runtimes=_versions(),
        threads=threads,
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        governor=clocks.governor,
        machine=platform.machine(),
        gpus=gpus(),
        clocking=clocks,
        cpu_quota=container.cpu_quota(ROOT),
        memory_limit_bytes=container.memory_limit_bytes(ROOT),
        container=container.kind(ROOT),
    )


def fingerprint(host: Host) -> str:
    """12 hex digits that are equal where latencies can be compared.

    Of the CPU and its instructions, its cores, quota and inference threads, governor, highest
    frequency, turbo and SMT, the GPUs, and the versions of the inference runtimes. Not of the
    kernel, Python, container or memory: those change with every image of a CI, and latency hardly.
    """
    versions = host.runtimes.items()
    runtimes = {name: version for name, version in versions if name not in LIBRARIES}
    clocks = msgspec.structs.replace(host.clocking, current_mhz=None, min_mhz=None)
    parts = (
        (host.machine, host.cpu, host.isa, host.cores, host.cpu_quota, host.threads),
        (host.governor, clocks, host.accelerator, host.gpus, runtimes),
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]


def int8_note(host: Host) -> str | None:
    """Warn that INT8 may not pay where the CPU has no INT8 dot product; None where it may."""
    if host.isa is None or INT8_DOT_PRODUCT & set(host.isa):
        return None
    return (
        f"{host.cpu} has no INT8 dot product (VNNI, AMX or dotprod), so INT8 may be no faster "
        "than FP32 here: on AVX2 alone ViT-B/16 measured 1.0x with OpenVINO and 1.6x with "
        "ONNX Runtime."
    )


def usable_cores() -> int:
    """Count the cores this process may use: its affinity, cut to whole cores of a cgroup quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, int(container.cpu_quota(ROOT) or cores)))


def _os() -> str:
    """Distribution and kernel."""
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return f"macOS {version}, {kernel}" if (version := platform.mac_ver()[0]) else kernel


def _versions() -> dict[str, str]:
    """Version of each runtime and of each of `LIBRARIES` that is installed; none is imported."""
    packages = {name: runtime.packages for name, runtime in runtimes().items()}
    packages |= {name: (name,) for name in LIBRARIES}
    versions: dict[str, str] = {}
    for name, distributions in packages.items():
        for distribution in distributions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions.setdefault(name, metadata.version(distribution))
    return versions


def _memory_bytes() -> int | None:
    """Physical memory, None on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None

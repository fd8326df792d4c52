"""This machine, looked at: its CPU and GPUs, what a container leaves of them, what is installed."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

from vitedge.core import container
from vitedge.core.cpu import clocking, identify
from vitedge.core.gpu import gpus
from vitedge.core.host import LIBRARIES, Host
from vitedge.core.intel import intel_devices
from vitedge.core.jetson import jetson
from vitedge.core.runtime import runtimes

ROOT = Path("/")


def describe_machine(threads: int) -> Host:
    """Describe this machine, where inference runs on `threads` threads of the CPU."""
    cpu, isa = identify()
    clocks = clocking(ROOT)
    return Host(
        cpu=cpu,
        isa=isa,
        accelerator=None,
        os=_os(),
        python=platform.python_version(),
        runtimes=versions(),
        threads=threads,
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        governor=clocks.governor,
        machine=platform.machine(),
        gpus=gpus(),
        intel_devices=intel_devices(ROOT),
        clocking=clocks,
        cpu_quota=container.cpu_quota(ROOT),
        memory_limit_bytes=container.memory_limit_bytes(ROOT),
        container=container.kind(ROOT),
        jetson=jetson(ROOT),
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


def versions() -> dict[str, str]:
    """Version of each runtime and of each of `LIBRARIES` that is installed; none is imported."""
    packages = {name: runtime.packages for name, runtime in runtimes().items()}
    packages |= {name: (name,) for name in LIBRARIES}
    versions: dict[str, str] = {}
    for name, distributions in packages.items():
        for distribution in distributions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(distribution)
                break
    return versions


def _memory_bytes() -> int | None:
    """Physical memory, None on Windows."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None

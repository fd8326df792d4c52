"""The machine a number was measured on: without it, a latency means nothing."""

from __future__ import annotations

import hashlib

import msgspec

from vitedge.core.cpu import Clocking
from vitedge.core.gpu import Gpu
from vitedge.core.jetson import Jetson

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
    gpus: tuple[Gpu, ...]
    """NVIDIA's."""
    intel_devices: tuple[str, ...] | None = ()
    """Intel's beside the CPU: `GPU`, `NPU`."""
    clocking: Clocking
    cpu_quota: float | None
    """Cores the cgroup allows; None where it does not limit them."""
    memory_limit_bytes: int | None
    """What the cgroup allows of `memory_bytes`; None where it does not limit it."""
    container: str | None
    """`docker`, `podman`, `kubernetes`, `lxc`, …; None: no container."""
    jetson: Jetson | None = None
    """None: no Jetson."""


def fingerprint(host: Host) -> str:
    """12 hex digits that are equal where latencies can be compared.

    Of the CPU and its instructions, its cores, quota and inference threads, governor, highest
    frequency, turbo and SMT, the GPUs, and the versions of the inference runtimes; of a Jetson its
    power mode and locked clocks, too. Not of the kernel, Python, container or memory: those change
    with every image of a CI, and latency hardly.
    """
    versions = host.runtimes.items()
    runtimes = {name: version for name, version in versions if name not in LIBRARIES}
    clocks = msgspec.structs.replace(host.clocking, current_mhz=None, min_mhz=None)
    parts = (
        (host.machine, host.cpu, host.isa, host.cores, host.cpu_quota, host.threads),
        (host.governor, clocks, host.accelerator, host.gpus, runtimes),
        *((host.jetson.state,) if host.jetson else ()),
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:12]


def states(first: Host | None, second: Host | None) -> tuple[str, str] | None:
    """Of one Jetson that differs in its state; None of what differs otherwise."""
    if first is None or second is None or not first.jetson or not second.jetson:
        return None
    if fingerprint(first) == fingerprint(second) or first.gpus != second.gpus:
        return None
    pair = str(first.jetson), str(second.jetson)
    return pair if pair[0] != pair[1] else None


def int8_note(host: Host) -> str | None:
    """Warn that INT8 may not pay where the CPU has no INT8 dot product; None where it may."""
    if host.isa is None or INT8_DOT_PRODUCT & set(host.isa):
        return None
    return (
        f"{host.cpu} has no INT8 dot product (VNNI, AMX or dotprod), so INT8 may be no faster "
        "than FP32 here: on AVX2 alone ViT-B/16 measured 1.0x with OpenVINO and 1.6x with "
        "ONNX Runtime."
    )

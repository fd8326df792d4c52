"""The machine a number was measured on: without it, a latency means nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import msgspec

from vitedge.gpu import Gpu, gpus

ISA = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "avx512_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""What decides how fast INT8 runs, as Linux's /proc/cpuinfo names it on x86 and arm."""
INT8_DOT_PRODUCT = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
RUNTIMES = {
    "onnxruntime": ("onnxruntime",),
    "onnxruntime-gpu": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12"),
    "cuda-bindings": ("cuda-bindings",),
    "torch": ("torch",),
    "onnx": ("onnx",),
}
"""The distributions that may bring each."""


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


def describe(threads: int) -> Host:
    """Describe this machine, where inference runs on `threads` threads of the CPU."""
    cpu, isa = _cpu()
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
        governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        machine=platform.machine(),
        gpus=gpus(),
    )


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
    return max(1, min(cores, int(_cgroup_quota(Path("/")))))


def _cgroup_quota(root: Path) -> float:
    """CPU quota of this process in cores, the tightest of its cgroup and those above.

    `root` holds proc/ and sys/. Reads cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us).
    """
    quota = float(os.cpu_count() or 1)
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, files = root / "sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            mount, files = root / "sys/fs/cgroup/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        folder = mount / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(mount):
                break
            words = " ".join(_read(group / file) or "" for file in files).split()
            if len(words) == 2 and words[0] not in ("max", "-1"):
                quota = min(quota, int(words[0]) / int(words[1]))
    return quota


def _cpu() -> tuple[str, tuple[str, ...] | None]:
    """Name of the CPU and those of `ISA` it has, None where the system does not tell."""
    name: str | None = None
    isa: tuple[str, ...] | None = None
    if (cpuinfo := _read(Path("/proc/cpuinfo"))) is not None:
        name, isa = _parse_cpuinfo(cpuinfo)
        name = name or _read(Path("/proc/device-tree/model"))  # arm boards
    elif platform.system() == "Darwin":
        name, isa = _sysctl("machdep.cpu.brand_string"), _darwin_isa()
    return name or platform.processor() or platform.machine(), isa


def _parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...] | None]:
    """Model name and ISA flags of the first core in the text of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features")
    name = fields.get("model name") or fields.get("Model")
    return name, None if flags is None else tuple(f for f in ISA if f in flags.split())


def _darwin_isa() -> tuple[str, ...] | None:
    """ISA flags on macOS, under Linux's names."""
    keys = {
        "avx2": "hw.optional.avx2_0",
        "avx512f": "hw.optional.avx512f",
        "asimddp": "hw.optional.arm.FEAT_DotProd",
        "i8mm": "hw.optional.arm.FEAT_I8MM",
        "bf16": "hw.optional.arm.FEAT_BF16",
    }
    return tuple(flag for flag in ISA if flag in keys and _sysctl(keys[flag]) == "1")


def _sysctl(key: str) -> str | None:
    """Value of a macOS kernel setting, None where it has no such one."""
    try:
        done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _os() -> str:
    """Distribution and kernel."""
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return f"macOS {version}, {kernel}" if (version := platform.mac_ver()[0]) else kernel


def _versions() -> dict[str, str]:
    """Version of each of `RUNTIMES` that is installed, without importing any."""
    versions: dict[str, str] = {}
    for name, distributions in RUNTIMES.items():
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


def _read(path: Path) -> str | None:
    """Text of a small file, stripped, None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None

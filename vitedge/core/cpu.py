"""The CPU as the kernel describes it: name, instructions, and how fast it is allowed to run."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

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


class Clocking(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the cores may run. None: the kernel does not tell, as in most virtual machines."""

    governor: str | None = None
    """Of all cores; `performance, schedutil` where they differ."""
    current_mhz: float | None = None
    """The fastest core's, at the time of asking."""
    min_mhz: float | None = None
    max_mhz: float | None = None
    """Of the fastest core, with turbo where that is on."""
    turbo: bool | None = None
    smt: bool | None = None
    """Two threads share a core."""


def identify() -> tuple[str, tuple[str, ...] | None]:
    """Name of the CPU and those of `ISA` it has, None where the system does not tell."""
    name: str | None = None
    isa: tuple[str, ...] | None = None
    if (cpuinfo := read(Path("/proc/cpuinfo"))) is not None:
        name, isa = parse_cpuinfo(cpuinfo)
        name = name or read(Path("/proc/device-tree/model"))  # arm boards
    elif platform.system() == "Darwin":
        name, isa = _sysctl("machdep.cpu.brand_string"), _darwin_isa()
    return name or platform.processor() or platform.machine(), isa


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...] | None]:
    """Model name and ISA flags of the first core in the text of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features")
    name = fields.get("model name") or fields.get("Model")
    return name, None if flags is None else tuple(f for f in ISA if f in flags.split())


def clocking(root: Path) -> Clocking:
    """What cpufreq says. `root` holds proc/ and sys/."""
    cpus = root / "sys/devices/system/cpu"
    governors = {read(policy / "scaling_governor") for policy in policies(root)} - {None}
    current = frequencies_mhz(root)
    lowest = [mhz(policy / "cpuinfo_min_freq") for policy in policies(root)]
    highest = [mhz(policy / "scaling_max_freq") for policy in policies(root)]
    return Clocking(
        governor=", ".join(sorted(str(governor) for governor in governors)) or None,
        current_mhz=max(current, default=None),
        min_mhz=min(filter(None, lowest), default=None),
        max_mhz=max(filter(None, highest), default=None),
        turbo=_turbo(cpus),
        smt=_flag(cpus / "smt/active"),
    )


def frequencies_mhz(root: Path) -> list[float]:
    """What each core, or group of cores that share one, runs at now; none where it is not told."""
    readings = [mhz(policy / "scaling_cur_freq") for policy in policies(root)]
    if frequencies := [reading for reading in readings if reading]:
        return frequencies
    lines = (read(root / "proc/cpuinfo") or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def read(path: Path) -> str | None:
    """Text of a small file, stripped, None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None


def policies(root: Path) -> Iterator[Path]:
    """The folders of cpufreq, of each core or group of cores that share a clock."""
    yield from sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))


def mhz(file: Path) -> float | None:
    """MHz, of a file of cpufreq, which counts in kHz."""
    text = read(file)
    return int(text) / 1000 if text and text.isdigit() else None


def _turbo(cpus: Path) -> bool | None:
    off = _flag(cpus / "intel_pstate/no_turbo")
    return _flag(cpus / "cpufreq/boost") if off is None else not off


def _flag(file: Path) -> bool | None:
    text = read(file)
    return None if text not in ("0", "1") else text == "1"


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
        process = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()

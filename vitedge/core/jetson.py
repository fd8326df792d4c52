"""What state a Jetson is in: its power mode, and whether jetson_clocks has locked its clocks.

Read from files that need no root but for the memory's clock; what cannot be read is unknown.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vitedge.core.cpu import mhz, policies, read

GPU = re.compile(r"gpu-gpc-\d+|[0-9a-f]+\.(gpu|g[a-z]\d\db)")
"""devfreq's name of the GPU: 17000000.gv11b (Xavier), .ga10b and .gpu (Orin), gpu-gpc-0 (Thor)."""
MEMORY = ("sys/kernel/debug/bpmp/debug/clk/emc", "sys/class/devfreq/bwmgr")
"""Of the memory's clock: of Xavier and Orin, for root alone; of Thor."""
QUERY_S = 5.0
"""What `nvpmodel -q` may take."""


class PowerMode(msgspec.Struct, frozen=True, kw_only=True):
    """One of nvpmodel's."""

    id: int
    name: str
    """`MAXN`, `15W`, `MODE_20W_6CORE`, …; the number where /etc/nvpmodel.conf does not name it."""


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """What a clock may run at."""

    min_mhz: float
    max_mhz: float
    locked: bool
    """It runs at `max_mhz` at all times."""


class Jetson(msgspec.Struct, frozen=True, kw_only=True):
    """A Jetson's state. None: it cannot be read here."""

    board: str | None
    """As the device tree names it."""
    l4t: str | None
    """Version of Jetson Linux: 35 is JetPack 5, 36 is 6, 38 is 7."""
    power_mode: PowerMode | None
    fastest_mode: PowerMode | None
    """Of those in /etc/nvpmodel.conf: MAXN, or the one of the most watts and cores."""
    cpu: Clock | None
    gpu: Clock | None
    memory: Clock | None

    @property
    def unlocked(self) -> tuple[str, ...]:
        """Which clocks are known to vary."""
        clocks = {"CPU": self.cpu, "GPU": self.gpu, "memory": self.memory}
        return tuple(name for name, clock in clocks.items() if clock and not clock.locked)

    @property
    def state(self) -> tuple[str | None, ...]:
        """What latency depends on: the power mode, and at what CPU and GPU are locked.

        Not the memory's clock, which root alone can read: jetson_clocks locks all three.
        """
        clocks = (
            None if clock is None else f"{clock.max_mhz:.0f}" if clock.locked else "varies"
            for clock in (self.cpu, self.gpu)
        )
        return (self.power_mode.name if self.power_mode else None, *clocks)

    def __str__(self) -> str:
        """Its state, as messages name it."""
        mode, cpu, gpu = (part or "unknown" for part in self.state)
        return f"power mode {mode} (MHz of CPU: {cpu}, GPU: {gpu})"


def jetson(root: Path) -> Jetson | None:
    """The state of this machine, whose files lie under `root`; None where it is no Jetson."""
    release = read(root / "etc/nv_tegra_release")
    if not (
        release is not None
        or "nvidia,tegra" in (read(root / "proc/device-tree/compatible") or "")
        or read(root / "sys/devices/soc0/family") == "Tegra"
    ):
        return None
    version = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release or "")
    modes = power_modes(read(root / "etc/nvpmodel.conf") or "")
    return Jetson(
        board=read(root / "proc/device-tree/model"),
        l4t=".".join(version.groups()) if version else None,
        power_mode=_power_mode(root, modes),
        fastest_mode=fastest(modes),
        cpu=_cpu(root),
        gpu=_gpu(root),
        memory=_memory(root),
    )


def power_modes(configuration: str) -> list[PowerMode]:
    """Those that the text of an nvpmodel.conf defines, in its order."""
    pattern = r"^[ \t]*<\s*POWER_MODEL\s+ID=(\d{1,9})\s+NAME=([^\s>]+)"
    pairs = re.findall(pattern, configuration, re.MULTILINE)
    return [PowerMode(id=int(number), name=name) for number, name in pairs]


def fastest(modes: Iterable[PowerMode]) -> PowerMode | None:
    """Which mode caps least; its number does not say. None where names do not tell.

    MAXN_SUPER, else MAXN; a board with neither (Xavier NX, Orin Nano) has the most watts, then
    cores, in the name.
    """

    def rank(mode: PowerMode) -> tuple[bool, bool, int, int]:
        watts, cores = (
            int(match[1]) if (match := re.search(rf"(\d{{1,4}}){unit}", mode.name)) else 0
            for unit in ("W", "CORE")
        )
        return mode.name.startswith("MAXN_"), mode.name.startswith("MAXN"), watts, cores

    best = max(modes, key=rank, default=None)
    return best if best and any(rank(best)) else None


def _power_mode(root: Path, modes: Iterable[PowerMode]) -> PowerMode | None:
    """What nvpmodel has last set; it is asked itself where its file is not there."""
    if match := re.search(r"pmode:\s*(\d{1,9})", read(root / "var/lib/nvpmodel/status") or ""):
        number = int(match[1])
        known = (mode for mode in modes if mode.id == number)
        return next(known, PowerMode(id=number, name=str(number)))
    try:
        answer = subprocess.run(
            [root / "usr/sbin/nvpmodel", "-q"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=QUERY_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"NV Power Mode: *(\S+)\s+(\d{1,9})\s*$", answer, re.MULTILINE)
    return PowerMode(id=int(match[2]), name=match[1]) if match else None


def _cpu(root: Path) -> Clock | None:
    """Of all cores that are on."""
    clocks = [
        clock
        for policy in policies(root)
        if (
            clock := _clock(
                mhz(policy / "scaling_min_freq"),
                mhz(policy / "scaling_max_freq"),
                read(policy / "scaling_governor"),
            )
        )
    ]
    return _together(clocks)


def _gpu(root: Path) -> Clock | None:
    folders = (root / "sys/class/devfreq").glob("*")
    return _together(_devfreq(folder) for folder in folders if GPU.fullmatch(folder.name))


def _memory(root: Path) -> Clock | None:
    clk, devfreq = (root / folder for folder in MEMORY)
    locked = read(clk / "mrq_rate_locked")
    low, high = (_hz(clk / name) for name in ("min_rate", "max_rate"))
    if locked in ("0", "1") and low and high:
        return Clock(min_mhz=low, max_mhz=high, locked=locked == "1")
    return _devfreq(devfreq)


def _devfreq(folder: Path) -> Clock | None:
    low, high = (_hz(folder / name) for name in ("min_freq", "max_freq"))
    return _clock(low, high, read(folder / "governor"))


def _clock(low: float | None, high: float | None, governor: str | None) -> Clock | None:
    """It is locked where there is no range, or a governor that keeps to its end."""
    if low is None or high is None:
        return None
    return Clock(min_mhz=low, max_mhz=high, locked=low == high or governor == "performance")


def _together(clocks: Iterable[Clock | None]) -> Clock | None:
    """Several as one; None where there is none."""
    known = [clock for clock in clocks if clock]
    if not known:
        return None
    return Clock(
        min_mhz=min(clock.min_mhz for clock in known),
        max_mhz=max(clock.max_mhz for clock in known),
        locked=all(clock.locked for clock in known),
    )


def _hz(file: Path) -> float | None:
    """devfreq and clk count in Hz."""
    text = read(file)
    return int(text) / 1e6 if text and re.fullmatch(r"\d{1,15}", text) else None

"""Energy meters, where a machine has one: RAPL, NVML, or the INA3221 of a Jetson."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Protocol

from vitedge.core.cpu import read
from vitedge.core.errors import UnavailableError
from vitedge.measure.latency import nvml

SAMPLE_S = 0.02
"""Between two looks at a meter of power; the INA3221 averages over longer than that."""
WHOLE_BOARD = ("VDD_IN", "VIN")
"""Jetson rails that all others hang on."""
SUPPLIES = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""Those that together feed an AGX Orin."""


class Meter(Protocol):
    """Counts energy from `start` to `stop`."""

    @property
    def source(self) -> str:
        """What is metered."""
        ...

    def start(self) -> None: ...
    def stop(self) -> float:
        """Joules since `start`."""
        ...


def find_meter(root: Path, *, gpu: bool) -> Meter:
    """The meter of what does the work: the GPU's, or the CPU package's, or the whole board's.

    `root` holds sys/. Raises UnavailableError, saying how to allow it where that is possible.
    """
    if rails := _rails(root):
        return Ina(rails)
    return Nvml() if gpu else Rapl(root)


class Rapl:
    """Running Average Power Limit: the energy counters of all CPU packages, through powercap."""

    def __init__(self, root: Path) -> None:
        """Raises UnavailableError where there are none, or only root may read them."""
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        packages = [zone for zone in zones if (read(zone / "name") or "").startswith("package")]
        if not packages:
            raise UnavailableError("this machine shows no energy counter (RAPL, NVML or INA3221)")
        self._counters = [package / "energy_uj" for package in packages]
        self._ranges = [int(read(zone / "max_energy_range_uj") or 2**32) for zone in packages]
        self.source = "RAPL " + ", ".join(str(read(zone / "name")) for zone in packages)
        self.start()

    def start(self) -> None:
        self._before = self._count()

    def stop(self) -> float:
        """Joules since `start`, even if a counter began again at zero, once."""
        after = self._count()
        used = zip(self._before, after, self._ranges, strict=True)
        return sum((b - a) if b >= a else b + most - a for a, b, most in used) / 1e6

    def _count(self) -> list[int]:
        try:
            return [int(counter.read_text()) for counter in self._counters]
        except OSError as error:
            raise UnavailableError(
                f"{error.filename} cannot be read ({error.strerror})",
                fix="sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",
            ) from error


class Nvml:
    """The energy counter of an NVIDIA GPU (Volta and later)."""

    def __init__(self) -> None:
        """Raises UnavailableError."""
        self._gpu = nvml.NvmlGpu()
        self.source = f"NVML {self._gpu.name}"
        self.start()

    def start(self) -> None:
        self._before = self._gpu.energy_j()

    def stop(self) -> float:
        return self._gpu.energy_j() - self._before


class Ina:
    """The INA3221 of a Jetson, which tells power: sampled, and added up over time."""

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        """`rails` are files of millivolts and milliamperes, by the rail's name."""
        self._rails = list(rails.values())
        self.source = "INA3221 " + " + ".join(rails)

    def start(self) -> None:
        self._samples = [(perf_counter(), self._watts())]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        last = (perf_counter(), self._watts())
        self._stopped.set()
        self._thread.join()
        return energy_j([*(sample for sample in self._samples if sample < last), last])

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_S):
            self._samples.append((perf_counter(), self._watts()))

    def _watts(self) -> float:
        """Raises UnavailableError where a rail cannot be read."""
        try:
            return sum(int(mv.read_text()) * int(ma.read_text()) for mv, ma in self._rails) / 1e6
        except OSError as error:
            raise UnavailableError(
                f"{error.filename} cannot be read ({error.strerror})", fix="run it as root"
            ) from error


def energy_j(samples: Sequence[tuple[float, float]]) -> float:
    """Add up power over time, (seconds, watts) ascending, by the trapezoidal rule."""
    return sum((b - a) * (low + high) / 2 for (a, low), (b, high) in pairwise(samples))


def _rails(root: Path) -> dict[str, tuple[Path, Path]]:
    """The fewest rails that feed the whole board, of all INA3221s; none where there is no such."""
    rails: dict[str, tuple[Path, Path]] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if read(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            number = label.name[2 : -len("_label")]
            files = chip / f"in{number}_input", chip / f"curr{number}_input"
            if all(file.exists() for file in files):
                rails[read(label) or ""] = files
    for name in WHOLE_BOARD:
        if name in rails:
            return {name: rails[name]}
    return {name: rails[name] for name in SUPPLIES if name in rails}

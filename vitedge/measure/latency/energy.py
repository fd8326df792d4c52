"""Energy of one run, taken apart from the timing: a meter needs seconds of the same work.

Meters, where a machine has one: RAPL, NVML, or the INA3221 of a Jetson.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Protocol

from vitedge.core.bundle import Bundle
from vitedge.core.cpu import read
from vitedge.core.errors import UnavailableError, error_line
from vitedge.core.measurements import Energy
from vitedge.core.runtime import Processor, runtime_of
from vitedge.measure.latency.clock import golden_feed, rounds_for, warm_up
from vitedge.measure.latency.request import BenchRequest
from vitedge.runtimes import open_session

IDLE_S = 0.5
LONGEST_S = 3.0
"""Of running; meters tell more often than ten times a second."""
SAMPLE_S = 0.02
"""Between two looks at a meter of power; the INA3221 averages over longer than that."""
WHOLE_BOARD = ("VDD_IN", "VIN")
"""Jetson rails that all others hang on."""
SUPPLIES = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""Those that together feed an AGX Orin."""


def measure_energy(
    bundle: Bundle, request: BenchRequest, root: Path, *, on_progress: Callable[[float], None]
) -> Energy:
    """Run `bundle` as asked, for 3 s at most, under this machine's meter; `root` holds sys/.

    Says why where there is no meter; then nothing is run.
    """
    try:
        meter = find_meter(root, runtime_of(bundle.manifest.target).processor)
        return _measure(bundle, request, meter, on_progress)
    except UnavailableError as error:
        how = f" (to allow it: {error.fix})" if error.fix else ""
        return Energy(
            joules_per_inference=None,
            watts=None,
            idle_watts=None,
            batch=request.batch or 1,
            source=None,
            note=f"not available: {error.what}{how}",
        )


def _measure(
    bundle: Bundle, request: BenchRequest, meter: Meter, on_progress: Callable[[float], None]
) -> Energy:
    with open_session(bundle, request.threads) as session:
        feed = golden_feed(bundle, session, request.batch)
        idle_w = _watts(meter, lambda: sleep(IDLE_S))
        warm_up(session, feed)
        runs = 0
        meter.start()
        start = perf_counter()
        for _ in rounds_for(min(request.duration_s, LONGEST_S), 1, on_progress):
            session.run(feed)
            runs += 1
        spent, joules = perf_counter() - start, meter.stop()
    return Energy(
        joules_per_inference=joules / runs,
        watts=joules / spent,
        idle_watts=idle_w,
        batch=len(next(iter(feed.values()))),
        source=meter.source,
        note="",
    )


def _watts(meter: Meter, work: Callable[[], None]) -> float:
    start = perf_counter()
    meter.start()
    work()
    return meter.stop() / (perf_counter() - start)


class Meter(Protocol):
    """Counts energy from `start` to `stop`."""

    @property
    def source(self) -> str:
        """What is metered."""
        ...

    def start(self) -> None:
        """Raises UnavailableError where it cannot be read."""
        ...

    def stop(self) -> float:
        """Joules since `start`."""
        ...


_NAMES = {"npu": "NPU", "browser": "browser"}


def find_meter(root: Path, processor: Processor) -> Meter:
    """The meter of what does the work: the GPU's, or the CPU package's, or the whole board's.

    `root` holds sys/. Raises UnavailableError, saying how to allow it where that is possible.
    """
    if rails := _rails(root):
        return Ina(rails)
    if processor not in ("cpu", "gpu"):
        raise UnavailableError(f"no meter is known for the {_NAMES[processor]}")
    meter = Nvml() if processor == "gpu" else Rapl(root)
    meter.start()  # a counter that cannot be read says so here
    return meter


class Rapl:
    """Running Average Power Limit: the energy counters of all CPU packages, through powercap."""

    def __init__(self, root: Path) -> None:
        """Raises UnavailableError where there are none."""
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        packages = [zone for zone in zones if (read(zone / "name") or "").startswith("package")]
        if not packages:
            raise UnavailableError("this machine shows no energy counter (RAPL, NVML or INA3221)")
        self._counters = [package / "energy_uj" for package in packages]
        self._ranges = [int(read(zone / "max_energy_range_uj") or 2**32) for zone in packages]
        self.source = "RAPL " + ", ".join(str(read(zone / "name")) for zone in packages)

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
    """NVIDIA's management library, of the first GPU this process may use (energy: Volta and later).

    Never yet run on a GPU.
    """

    def __init__(self) -> None:
        """Raises UnavailableError without nvidia-ml-py, a driver or a GPU."""
        try:
            import pynvml
        except ImportError as error:
            raise UnavailableError(
                "the package 'nvidia-ml-py' is not installed", fix="pip install nvidia-ml-py"
            ) from error
        self._api = pynvml
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        try:
            pynvml.nvmlInit()
            if first.isdigit():
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
            else:
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(first)
        except pynvml.NVMLError as error:
            raise UnavailableError(f"NVML shows no GPU: {error_line(error)}") from error

    @property
    def source(self) -> str:
        return f"NVML {self._ask('nvmlDeviceGetName')}"

    def used_bytes(self) -> int:
        """Memory in use by all processes. Raises UnavailableError."""
        return int(self._ask("nvmlDeviceGetMemoryInfo").used)

    def start(self) -> None:
        self._before = self._energy_j()

    def stop(self) -> float:
        return self._energy_j() - self._before

    def _energy_j(self) -> float:
        """Energy since the driver was loaded, joules. Raises UnavailableError."""
        return float(self._ask("nvmlDeviceGetTotalEnergyConsumption")) / 1e3

    def _ask(self, question: str) -> Any:
        try:
            return getattr(self._api, question)(self._handle)
        except self._api.NVMLError as error:
            raise UnavailableError(f"NVML does not tell: {error_line(error)}") from error


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

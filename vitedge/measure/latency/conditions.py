"""What the machine was like while it timed: a latency is worth as much as its conditions."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter, perf_counter_ns

import numpy as np

from vitedge.core import cpu
from vitedge.core.host import Host, fingerprint
from vitedge.core.jetson import jetson
from vitedge.core.measurements import Conditions
from vitedge.core.thermal import slowing, zones
from vitedge.measure.latency.device_state import jetson_warnings, zone_warnings
from vitedge.measure.latency.processes import cpu_s

WORK = bytes(2**14)
WORK_MS = 1.0
"""Time of the fixed piece of work, calibrated when a watch begins."""
LOOKS = 10
"""Looks before and after timing; those between rounds come on top."""
ASK_S = 0.5
"""Between two questions for the cores' clocks, which interrupt every core on some machines."""
SHORTEST_S = 0.2
"""The kernel counts CPU time in steps of 10 ms: nothing is said of a shorter watch."""

NOISE_PERCENT, OTHER_CORES, STEAL_PERCENT = 5.0, 0.1, 1.0
"""More than this is worth a warning."""
NOT_ALONE = "another process has kept the lock of those that time here, and was not waited for"


@dataclass(frozen=True)
class Usage:
    """CPU time spent since the machine was started, of the cores this process may use, seconds."""

    busy_s: float
    steal_s: float
    total_s: float


class Watch:
    """Watches this machine from when it is made; `look` at it between timed rounds, too."""

    def __init__(self, root: Path, *, alone: bool = True) -> None:
        """`root` holds proc/ and sys/; `alone`: no other vitedge times meanwhile."""
        self._root, self._alone = root, alone
        self._started = datetime.now(timezone.utc)
        self._slowing, self._zones = slowing(root), zones(root)
        self._repeat = 1
        self._repeat = max(1, round(WORK_MS * 1e6 / min(self._work() for _ in range(LOOKS))))
        self._work_ns: list[int] = []
        self._mhz: list[float] = []
        self._frequency_read_s = -ASK_S
        for _ in range(LOOKS):
            self.look()
        self._usage, self._own, self._began = usage(root), cpu_s(root), perf_counter()

    def look(self) -> None:
        """Time the fixed piece of work, about 1 ms of it; at times, ask for the cores' clocks."""
        self._work_ns.append(self._work())
        if perf_counter() - self._frequency_read_s >= ASK_S:
            if mhz := cpu.frequencies_mhz(self._root):
                self._mhz.append(max(mhz))
            self._frequency_read_s = perf_counter()

    def throttled(self) -> bool | None:
        """Whether heat or over-current has slowed the machine down since, or does so now.

        None where it has no counters.
        """
        before, now = self._slowing, slowing(self._root)
        if before is None or now is None:
            return None
        return now.events > before.events or before.active or now.active

    def temperatures_c(self) -> dict[str, tuple[float, float]]:
        """Of each thermal zone, at the beginning and now."""
        now, before = zones(self._root), self._zones
        return {
            name: (before[name].temperature_c, zone.temperature_c)
            for name, zone in now.items()
            if name in before
        }

    def temperature_c(self) -> tuple[float, float] | None:
        """Of the hottest sensor, at the beginning and now."""
        pairs = self.temperatures_c().values()
        hottest = (max(readings) for readings in zip(*pairs, strict=True))
        return (next(hottest), next(hottest)) if pairs else None

    def conditions(self, machine: Host) -> Conditions:
        """All that was seen, on `machine`; call it when timing is over."""
        now, wall_s = usage(self._root), perf_counter() - self._began
        own_s = cpu_s(self._root) - self._own
        throttled, temperatures_c = self.throttled(), self.temperatures_c()
        state = jetson(self._root)
        for _ in range(LOOKS):
            self.look()
        low, middle, high = np.percentile(self._work_ns, [25, 50, 75])
        noise = 100 * float(high - low) / float(middle)
        other: float | None = None
        steal: float | None = None
        if self._usage and now and wall_s >= SHORTEST_S:
            other = max(0.0, (now.busy_s - self._usage.busy_s - own_s) / wall_s)
            total_s = now.total_s - self._usage.total_s
            steal = 100 * (now.steal_s - self._usage.steal_s) / total_s if total_s else 0.0
        return Conditions(
            measured_at=self._started.isoformat(timespec="seconds"),
            fingerprint=fingerprint(machine),
            noise_percent=noise,
            other_cores=other,
            steal_percent=steal,
            frequency_mhz=(min(self._mhz), max(self._mhz)) if self._mhz else None,
            throttled=throttled,
            temperatures_c=temperatures_c,
            jetson=state,
            warnings=(
                *warnings(machine, noise, other, steal, throttled),
                *jetson_warnings(machine.jetson, state),
                *zone_warnings(self._zones, zones(self._root)),
                *(() if self._alone else (NOT_ALONE,)),
            ),
        )

    def _work(self) -> int:
        """Time of the fixed piece of work, ns: hashing, which is one thread in the L1 cache."""
        start = perf_counter_ns()
        for _ in range(self._repeat):
            hashlib.sha256(WORK)
        return perf_counter_ns() - start


def warnings(
    machine: Host,
    noise_percent: float,
    other_cores: float | None,
    steal_percent: float | None,
    throttled: bool | None,
) -> Sequence[str]:
    """Why not to trust numbers of `machine`, a line each."""
    reasons = []
    jetson_clocks = machine.jetson is not None and machine.jetson.cpu is not None
    if machine.governor not in (None, "performance") and not jetson_clocks:
        reasons.append(
            f"the CPU governor is '{machine.governor}', so latency depends on what ran before: "
            "sudo cpupower frequency-set -g performance"
        )
    if other_cores is not None and other_cores > OTHER_CORES:
        reasons.append(f"other processes kept {other_cores:.2g} of {machine.cores} cores busy")
    if steal_percent is not None and steal_percent > STEAL_PERCENT:
        reasons.append(
            f"the hypervisor gave {steal_percent:.2g}% of the CPU time to other machines"
        )
    if throttled:
        reasons.append("the machine was too hot, or drew too much power, and was slowed down")
    if noise_percent > NOISE_PERCENT:
        reasons.append(
            f"this machine is noisy: the same work took {noise_percent:.0f}% more or less time, "
            "so trust intervals, not single numbers"
        )
    return reasons


def usage(root: Path) -> Usage | None:
    """Read /proc/stat under `root`; None where there is none."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    own_cores = {f"cpu{core}" for core in affinity(0)} if affinity else set()
    rows = [line.split() for line in (cpu.read(root / "proc/stat") or "").splitlines()]
    counts = [[int(word) for word in row[1:9]] for row in rows if row and row[0] in own_cores]
    if not counts:
        return None
    second = os.sysconf("SC_CLK_TCK")
    user, nice, system, idle, iowait, irq, softirq, steal = (
        sum(column) / second for column in zip(*counts, strict=True)
    )
    busy = user + nice + system + irq + softirq
    return Usage(busy_s=busy, steal_s=steal, total_s=busy + idle + iowait + steal)

"""How hot this machine is, and whether heat has slowed it down, as the kernel tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitedge.core.cpu import read

SLOWS = re.compile(r"cpufreq|devfreq|throttle-alert")
"""Types of cooling devices that cool by slowing down; fans do not."""
TRIPS = ("passive", "hot", "critical")
"""Types of trip points that slow a machine down or shut it off; `active` ones start fans."""
OFF_C = -40.0
"""Colder than any sensor says of itself: what is switched off reads -256 °C."""
DUMMY = "PMIC"
"""Jetsons' zone of this name reads the same at all times."""


@dataclass(frozen=True)
class Zone:
    """One thermal zone."""

    temperature_c: float
    trip_c: float | None
    """The lowest temperature at which it has the machine slowed down; None where it has none."""


@dataclass(frozen=True)
class Slowing:
    """What has slowed this machine down for heat, or power."""

    events: int
    """Counted since it was started: Intel's thermal_throttle, a Jetson's over-current."""
    active: bool
    """Whether a cooling device slows it down now."""


def zones(root: Path) -> dict[str, Zone]:
    """Each thermal zone that can be read, by its type; `root` holds sys/.

    Zones of one type are told apart by a number: `acpitz`, `acpitz 2`. A zone whose unit is
    switched off cannot be read, and is not here.
    """
    named: dict[str, Zone] = {}
    folders = (root / "sys/class/thermal").glob("thermal_zone[0-9]*")
    for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name)):
        temperature = _celsius(folder / "temp")
        kind = read(folder / "type") or folder.name
        if temperature is None or temperature <= OFF_C or kind.startswith(DUMMY):
            continue
        same = sum(name == kind or name.startswith(f"{kind} ") for name in named)
        name = f"{kind} {same + 1}" if same else kind
        named[name] = Zone(temperature, min(_trips(folder), default=None))
    return named


def slowing(root: Path) -> Slowing | None:
    """What has slowed this machine down; None where it has neither counters nor such devices."""
    sys = root / "sys"
    counters = [
        *sys.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"),
        *sys.glob("class/hwmon/hwmon*/oc*_event_cnt"),
    ]
    coolers = [
        cooler / "cur_state"
        for cooler in (sys / "class/thermal").glob("cooling_device*")
        if SLOWS.search(read(cooler / "type") or "")
    ]
    counts, states = (
        [n for file in files if (n := _count(file)) is not None] for files in (counters, coolers)
    )
    if not counts and not states:
        return None
    return Slowing(sum(counts), any(states))


def _trips(folder: Path) -> Iterator[float]:
    """Temperatures from which a zone has the machine slowed down, °C; those not set are 0."""
    for file in folder.glob("trip_point_*_type"):
        limit = _celsius(file.with_name(file.name.replace("_type", "_temp")))
        if read(file) in TRIPS and limit is not None and limit > 0:
            yield limit


def _celsius(file: Path) -> float | None:
    """The kernel counts in thousandths."""
    text = read(file)
    return int(text) / 1000 if text and re.fullmatch(r"-?\d{1,9}", text) else None


def _count(file: Path) -> int | None:
    text = read(file)
    return int(text) if text and re.fullmatch(r"\d{1,18}", text) else None

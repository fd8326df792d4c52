"""Why not to trust what a machine timed that was hot, capped, or free to change its clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vitedge.core.jetson import Jetson
from vitedge.core.thermal import Zone

NEAR_C = 5.0
"""Below the temperature from which a zone has the machine slowed down."""


def jetson_warnings(before: Jetson | None, after: Jetson | None) -> Iterator[str]:
    """A Jetson in another power mode than its fastest, with clocks that vary, or changed."""
    if before is None or after is None:
        return
    mode, fastest = after.power_mode, after.fastest_mode
    if before.state != after.state:
        yield f"the Jetson was changed while it timed: {before}, then {after}"
    if mode and fastest and mode.id != fastest.id:
        yield (
            f"the Jetson's power mode is {mode.name}, so latencies are this mode's; "
            f"{fastest.name} caps least: sudo nvpmodel -m {fastest.id}"
        )
    elif mode and not fastest and not mode.name.startswith("MAXN"):
        yield f"the Jetson's power mode is {mode.name}, not MAXN: sudo nvpmodel -p --verbose"
    if clocks := after.unlocked:
        yield (
            f"the clocks of {' and '.join(clocks)} are not locked, so latency depends on what ran "
            "before: sudo jetson_clocks"
        )


def zone_warnings(before: Mapping[str, Zone], after: Mapping[str, Zone]) -> Iterator[str]:
    """Zones that were, before timing or after, about as hot as has the machine slowed down."""
    for name, zone in after.items():
        readings = [seen[name].temperature_c for seen in (before, after) if name in seen]
        if zone.trip_c is not None and max(readings) >= zone.trip_c - NEAR_C:
            yield (
                f"{name} was at {max(readings):.0f} °C, and from {zone.trip_c:.0f} °C the machine "
                "is slowed down: cool it, or time it for less long"
            )

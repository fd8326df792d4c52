"""`vitedge bench --fleet`: the devices of a file, a few at a time, and what is true over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vitedge.cli import devices
from vitedge.cli.output import say

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.errors import VitedgeError
    from vitedge.core.report import Report
    from vitedge.measure.latency.photographs import Photographs
    from vitedge.measure.remote.fleet import Units


def bench(
    path: Path,
    bundles: Sequence[Bundle],
    against: str,
    images: Photographs | None,
    context: typer.Context,
) -> tuple[list[Report], list[VitedgeError], list[Units]]:
    """As `devices.bench`; goes on where a run of the same before it ended."""
    from vitedge.core import report
    from vitedge.measure.remote import fleet as fleets
    from vitedge.measure.remote.address import parse_address

    fleet = fleets.read_fleet(path)
    key = fleets.key_of(devices.forwarded(context), against, bundles)
    reports: dict[str, list[Report]] = {}
    for address in fleets.read_done(path, key):
        name = f"report-{parse_address(address).slug}.json"
        before = [report.read(bundle.path / name) for bundle in bundles]
        kept = [one for one in before if one is not None]
        if len(kept) == len(bundles):
            reports[address] = kept
    wanted = [device.address for device in fleet.devices]
    left = [address for address in wanted if address not in reports]
    if len(left) < len(wanted):
        say(f"{len(wanted) - len(left)} of {len(wanted)} devices were measured before", err=True)
    errors: list[VitedgeError] = []
    for start in range(0, len(left), fleets.AT_A_TIME):
        some = left[start : start + fleets.AT_A_TIME]
        measured, wrong = devices.bench(some, bundles, against, images, context)
        for merged in measured:
            reports.setdefault(merged.device or "", []).append(merged)
        errors += wrong
        fleets.write_done(path, key, [address for address in wanted if address in reports])
    if not errors:
        fleets.forget(path)
    ordered = [merged for address in wanted for merged in reports.get(address, ())]
    names = {
        device.address: " ".join([device.address, *(f"{k}={v}" for k, v in device.labels.items())])
        for device in fleet.devices
    }
    return ordered, errors, fleets.units(ordered, fleet.max_p50_ms, names)


def lines(over: Sequence[Units]) -> list[str]:
    """What is said of each artifact."""
    said = []
    for units in over:
        text = (
            f"{units.artifact} on {units.units} devices: median p50 {units.median_ms:.3g} ms, "
            f"worst {units.worst_ms:.3g} ms ({units.worst})"
        )
        if units.within is not None and units.within_ci is not None:
            low, high = units.within_ci
            text += f"; {units.within} keep the limit: {low:.0%} to {high:.0%} of all such devices"
        said.append(text)
        said += [f"outlier: {name}, {p50:.3g} ms" for name, p50 in units.outliers.items()]
    return said

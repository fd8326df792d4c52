"""`vitedge bench` on other machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from vitedge.core.bundle import Bundle
from vitedge.core.errors import VitedgeError
from vitedge.core.progress import Steps
from vitedge.core.report import Report
from vitedge.measure.remote import job
from vitedge.measure.remote.address import Address
from vitedge.measure.remote.connection import PATIENCE, Patience


@dataclass(frozen=True)
class DeviceResult:
    """What `vitedge bench` said on one device; both where it broke a limit."""

    address: Address
    reports: tuple[Report, ...] = ()
    """In the order of the bundles; empty where there are none."""
    error: VitedgeError | None = None


def bench(
    addresses: Sequence[Address],
    command: Sequence[job.Word],
    steps: Steps,
    patience: Patience = PATIENCE,
) -> list[DeviceResult]:
    """Run `vitedge` with the words of `command` on devices, as `job.run` does.

    It prints reports as a JSON document.
    """
    bundles = [word for word in command if isinstance(word, Bundle)]
    count = len(bundles) - ("--against" in command)  # which is timed, and has no report
    answers = job.run(addresses, command, partial(_reports, count=count), steps, patience)
    return [DeviceResult(answer.address, answer.value or (), answer.error) for answer in answers]


def _reports(result: str, count: int) -> tuple[Report, ...]:
    """Those that `vitedge bench --json` printed: one, or several. Raises ValueError."""
    parts = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    if "reports" in parts:
        reports = msgspec.json.decode(parts["reports"], type=tuple[Report, ...])
    else:
        reports = (msgspec.json.decode(result, type=Report),)
    if len(reports) != count:
        raise ValueError(f"{len(reports)} reports for {count} bundles")
    return reports

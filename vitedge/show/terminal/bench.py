"""What `bench` measured beside SingleStream, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vitedge.show import columns, report_tables
from vitedge.show.terminal.tables import grid
from vitedge.show.text import number

if TYPE_CHECKING:
    from rich.table import Table

    from vitedge.core.jetson import Jetson
    from vitedge.core.measurements import Conditions, Drift, EndToEnd
    from vitedge.core.report import Report


def tables(measured: Sequence[Report]) -> Iterator[Table]:
    """A table for each kind of run that is in any of the reports."""
    title = "throughput of settings in turn, offline's best marked *"
    if (throughput := report_tables.throughput(measured, title)).rows:
        yield grid(throughput)
    if (
        end_to_end := report_tables.end_to_end(measured, "end to end, from image files to outputs")
    ).rows:
        yield grid(end_to_end)
    if (costs := report_tables.costs(measured, "cold start and cost")).rows:
        yield grid(costs)


def facts(measured: Sequence[Report]) -> Iterator[str]:
    """Lines on how sure all that is: drift, energy that is not available, noise."""
    for report in measured:
        if report.drift:
            yield f"{report.artifact}: {_drift(report.drift)}"
        if report.end_to_end:
            yield f"{report.artifact}: {_end_to_end(report.end_to_end)}"
    notes = [report.energy.note for report in measured if report.energy]
    yield from dict.fromkeys(f"energy: {note}" for note in notes if note)
    yield from dict.fromkeys(_noise(r.conditions) for r in measured if r.conditions)
    states = [(r.host.jetson, r.conditions) for r in measured if r.host and r.host.jetson]
    yield from dict.fromkeys(_jetson(jetson, conditions) for jetson, conditions in states)


def warnings(measured: Sequence[Report]) -> list[str]:
    """Why not to trust the numbers, each once."""
    lines: list[str] = []
    for report in measured:
        if report.drift and report.drift.slower:
            lines.append(f"{report.artifact} got slower while it ran: see its drift")
        lines += report.conditions.warnings if report.conditions else ()
    return list(dict.fromkeys(lines))


def _drift(drift: Drift) -> str:
    numbers = (drift.slope_percent_per_minute, *drift.slope_ci)
    slope, low, high = (number(value, "+.2g") for value in numbers)
    line = f"p50 changed by {slope}% a minute ({low} to {high}) over {number(drift.duration_s)} s"
    if drift.throttled is not None:
        line += ", throttled by heat" if drift.throttled else ", not throttled"
    if drift.temperature_c:
        line += f", {' to '.join(number(end, '.0f') for end in drift.temperature_c)} °C"
    return line


def _jetson(jetson: Jetson | None, conditions: Conditions | None) -> str:
    """Power mode, clocks and temperatures; and of what cannot be read, that it is unknown."""
    mode, clocks = columns.power_mode(jetson), columns.locked(jetson)
    line = f"{columns.board(jetson)}: power mode {mode}; clocks locked: {clocks}"
    heat = columns.temperatures(conditions) if conditions else None
    return f"{line}; {heat or 'temperatures unknown'}{' °C' if heat else ''}"


def _end_to_end(of_files: EndToEnd) -> str:
    """What was read, and how well the parts account for the whole."""
    sizes = dict.fromkeys(number(size) for size in of_files.megapixels)
    images = "image" if of_files.images == 1 else "images"
    return (
        f"end to end of {of_files.images} {images} of {' to '.join(sizes)} megapixels "
        f"({of_files.data}); by p50 the parts sum to {number(100 * (1 - of_files.gap), '.4g')}% of "
        "the whole, which is timed in turn with them"
    )


def _noise(conditions: Conditions) -> str:
    noise, busy, stolen = (
        number(value, ".2g")
        for value in (conditions.noise_percent, conditions.other_cores, conditions.steal_percent)
    )
    line = f"noise of this machine: the same work took {noise}% more or less time"
    if conditions.other_cores is not None:
        line += f", {busy} cores busy with other processes, {stolen}% stolen"
    if conditions.frequency_mhz:
        clocks = dict.fromkeys(number(mhz, ".0f") for mhz in conditions.frequency_mhz)
        line += f", {' to '.join(clocks)} MHz"
    return f"{line} (host {conditions.fingerprint})"

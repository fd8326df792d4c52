"""`vitedge bench --device`: the same command on other machines, a row for each in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vitedge.cli.flags import command_line
from vitedge.core.errors import VitedgeError
from vitedge.core.progress import steps

if TYPE_CHECKING:
    from vitedge.core.bundle import Bundle
    from vitedge.core.report import Report
    from vitedge.measure.latency.photographs import Photographs

LOCAL = {
    *("artifacts", "against", "end_to_end", "device", "fleet"),
    *("csv", "html", "as_json", "trust", "accepted"),
}
"""What concerns this machine alone; every other option given goes to the device as it is."""


def forwarded(context: typer.Context) -> list[str]:
    """The options that the user has typed and that a device is to be given, too."""
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in LOCAL or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if isinstance(value, bool):
            flags = option.opts if value else option.secondary_opts
            words += flags[:1]
            continue
        for argument in value if isinstance(value, (list, tuple)) else [value]:
            words += [option.opts[0], str(argument)]
    return words


def bench(
    devices: Sequence[str],
    bundles: Sequence[Bundle],
    against: str,
    images: Photographs | None,
    context: typer.Context,
) -> tuple[list[Report], list[VitedgeError]]:
    """Bench on every device and keep each one's reports beside this machine's.

    Returns them all, each with its `device`, and what went wrong on others.
    """
    from vitedge.core import report
    from vitedge.core.bundle import open_bundle
    from vitedge.measure.remote import bench as remote
    from vitedge.measure.remote.address import parse_address

    addresses = [parse_address(text) for text in dict.fromkeys(devices)]
    command: list[str | Bundle | Photographs] = ["bench", *bundles, *forwarded(context), "--json"]
    if against != "fp32":
        command += ["--against", open_bundle(Path(against), bundles[0].trust)]
    if images:
        command += ["--end-to-end", images]
    for bundle in bundles:
        report.check_writable(bundle)
    with steps(wording=command_line) as progress:
        measured = remote.bench(addresses, command, progress)
    reports = [
        report.merge_from_device(
            bundle, sections, measurement.address.text, measurement.address.slug
        )
        for measurement in measured
        for bundle, sections in zip(bundles, measurement.reports, strict=bool(measurement.reports))
    ]
    return reports, [measurement.error for measurement in measured if measurement.error]


def labelled(reports: Sequence[Report]) -> list[Report]:
    """The reports, for a table in which each row says its device."""
    import msgspec

    return [
        msgspec.structs.replace(
            report, artifact=f"{report.artifact} on {(report.device or '').removeprefix('ssh://')}"
        )
        for report in reports
    ]


def document(reports: Sequence[Report]) -> dict[str, Any]:
    """The reports of each device, for `--json`."""
    devices = dict.fromkeys(report.device for report in reports)
    return {
        "devices": [
            {"device": name, "reports": [report for report in reports if report.device == name]}
            for name in devices
        ]
    }

"""Parity on this machine, with no dataset: what a report says of it, and when it is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitedge.core import report
from vitedge.core.bundle import REPORT, Bundle
from vitedge.core.errors import LimitError, VitedgeError
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.measure.accuracy import golden
from vitedge.runtimes import open_session


def sections(bundle: Bundle, threads: int = 0) -> dict[str, report.Section]:
    """Run a bundle on its golden images: `parity`, and `numerics` where no dataset gave any."""
    with open_session(bundle, threads) as session:
        parity = golden.measure(bundle, session)
    before = report.read(bundle.path / REPORT)
    known = before.get("numerics") if before.get("files") == bundle.model_files else None
    measured: dict[str, report.Section] = {"parity": parity}
    if parity.numerics and (not known or known["data"] == "golden"):
        measured["numerics"] = parity.numerics
    return measured


def check(bundle: Bundle) -> dict[str, Any]:
    """Compare a bundle with FP32 on its golden images; returns its merged report.

    That it computes here what it computed where it was exported says nothing of its accuracy.
    """
    report.check_writable(bundle)
    machine = report.host_of(bundle, describe_machine(usable_cores()))
    size = report.size(bundle, bundle.reference())
    return report.merge(
        bundle, **{**report.host_changes(bundle, machine), **sections(bundle), "size": size}
    )


def broken(reports: Sequence[Mapping[str, Any]]) -> list[VitedgeError]:
    """An error for each report whose artifact does not compute here what it is."""
    return [
        LimitError(
            f"{merged['artifact']} does not compute on this machine what it was built for: {why}",
            fix="do not ship it to this machine: export it for one of its targets "
            "('vitedge doctor'), and compare the runtime's version with the manifest's",
        )
        for merged in reports
        if (why := merged.get("parity", {}).get("broken"))
    ]

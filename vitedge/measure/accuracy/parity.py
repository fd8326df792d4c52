"""Parity on this machine, with no dataset: what a report says of it, and when it is broken."""

from __future__ import annotations

from collections.abc import Sequence

from vitedge.core import report
from vitedge.core.bundle import Bundle
from vitedge.core.errors import LimitError, VitedgeError
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.report import Numerics, Parity, Report
from vitedge.measure.accuracy import golden
from vitedge.runtimes import open_session


def measure(bundle: Bundle, threads: int = 0) -> tuple[Parity, Numerics | None]:
    """Run a bundle on its golden images: parity, and numerics where no dataset gave any."""
    with open_session(bundle, threads) as session:
        parity = golden.measure(bundle, session)
    before = report.of_bundle(bundle)
    known = before.numerics if before else None
    return parity, parity.numerics if known is None or known.data == "golden" else None


def check(bundle: Bundle) -> Report:
    """Compare a bundle with FP32 on its golden images; returns its merged report.

    That it computes here what it computed where it was exported says nothing of its accuracy.
    """
    report.check_writable(bundle)
    parity, numerics = measure(bundle)
    measured = Report(
        **report.identity(bundle),
        parity=parity,
        numerics=numerics,
        size=report.size(bundle, bundle.reference()),
        host=report.host_of(bundle, describe_machine(usable_cores())),
    )
    return report.merge(bundle, measured)


def broken(reports: Sequence[Report]) -> list[VitedgeError]:
    """An error for each report whose artifact does not compute here what it is."""
    return [
        LimitError(
            f"{merged.artifact} does not compute on this machine what it was built for: {why}",
            fix="do not ship it to this machine: export it for one of its targets "
            "('vitedge doctor'), and compare the runtime's version with the manifest's",
        )
        for merged in reports
        if merged.parity and (why := merged.parity.broken)
    ]

"""Does a bundle compute, on this machine, what it was built from? Its golden images tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitedge.core import report
from vitedge.core.bundle import Bundle, Golden
from vitedge.core.errors import InconclusiveError, InputError, LimitError, VitedgeError
from vitedge.core.machine import describe_machine, usable_cores
from vitedge.core.manifest import GoldenParity
from vitedge.core.numerics import EXPORT_PARITY
from vitedge.core.report import Numerics, OutputNumerics, Parity, Report
from vitedge.core.spec import ONE_CLASS, Detection, Precision, Task
from vitedge.measure.accuracy import ties
from vitedge.measure.accuracy.output_error import OutputErrors
from vitedge.measure.accuracy.validation import run_all
from vitedge.runtimes import open_session, runs_here

LOST_DB = 6.0
"""SQNR that another machine may lose: there the noise is twice what it was at export."""
EXACT_DB = 40.0
"""SQNR above which machines may differ as they like: 1% of the signal."""


def compare(
    golden: Golden,
    outputs: Mapping[str, NDArray[np.float32]],
    precision: Precision,
    task: Task,
    at_export: GoldenParity | None,
    orders: Sequence[str] = (),
    detection: Detection | None = None,
) -> Parity:
    """Compare `outputs` (k, …) for the golden images with FP32's, and with those `at_export`.

    The main one comes first; one that is broken breaks them all. `orders` and
    `detection` are the manifest's.
    """
    main, got = next(iter(outputs.items()))
    want = golden.by_name(main)
    numerics = against_golden(golden, outputs, task, orders, detection)
    before_db = {} if at_export is None else {main: at_export.sqnr_db, **at_export.further}
    broken = ""
    for name, error in (numerics.outputs or {main: numerics}).items():
        largest = float(np.abs(want[name]).max())
        why = _why_broken(error, largest, precision, before_db.get(name))
        if why and not broken:
            broken = f"output '{name}': {why}" if len(outputs) > 1 else why
    finite = numerics.max_abs_error is not None
    agreement: float | None = None
    if finite and task in ONE_CLASS:
        agreement = float(ties.agreement(want[main], got).mean())
    return Parity(
        n=len(got),
        numerics=numerics if finite else None,
        agreement=agreement,
        at_export_db=before_db.get(main),
        broken=broken,
    )


def _why_broken(
    error: OutputNumerics, largest: float, precision: Precision, at_export_db: float | None
) -> str:
    """Why an output of values up to `largest` is not what it should be; empty where it is."""
    least_db = -math.inf if at_export_db is None else min(at_export_db, EXACT_DB) - LOST_DB
    if error.max_abs_error is None:
        return "its outputs are not finite"
    if precision == "fp32" and error.max_abs_error > EXPORT_PARITY * largest:
        return f"error {error.max_abs_error:.1e} on outputs up to {largest:.1e} in FP32"
    if precision != "fp32" and error.sqnr_db is not None and error.sqnr_db < least_db:
        return f"{error.sqnr_db:.1f} dB SQNR, {at_export_db:.1f} where it was exported"
    return ""


def against_golden(
    golden: Golden,
    outputs: Mapping[str, NDArray[np.float32]],
    task: Task,
    orders: Sequence[str] = (),
    detection: Detection | None = None,
) -> Numerics:
    """The error of `outputs` (k, …) for the golden images, the main one first, against FP32's."""
    by_name = golden.by_name(next(iter(outputs)))
    errors = OutputErrors(outputs, task, orders, detection)
    want = [by_name[name] for name in outputs]
    errors.update(want, errors.matched(want, list(outputs.values())))
    return errors.result("golden", len({image.tobytes() for image in golden.images}))


def _on_golden(bundle: Bundle, threads: int = 0) -> Parity:
    """Run `bundle` on its golden images (k, H, W, 3), and compare it with FP32's outputs in it."""
    manifest, golden = bundle.manifest, bundle.golden()
    with open_session(bundle, threads) as session:
        names = [spec.name for spec in session.outputs]
        outputs = dict(zip(names, run_all(session, golden.images), strict=True))
    model, orders = manifest.model, manifest.orders
    before, precision = manifest.golden, manifest.precision
    return compare(golden, outputs, precision, model.task, before, orders, model.detection)


def at_export(bundle: Bundle) -> GoldenParity | None:
    """Run `bundle` on its golden images, if it runs here; FP32 must agree with the graph.

    Returns what to remember of that, None where it does not run here.
    Raises InputError when it does not compute what it was built from.
    """
    if not runs_here(bundle):
        return None
    parity = _on_golden(bundle)
    if parity.numerics is None or parity.broken:
        raise InputError(
            f"{bundle.manifest.name} does not compute what it was built from: {parity.broken}",
            fix="is the disk full? Otherwise report it with the model",
        )
    further = list(parity.numerics.outputs.items())[1:]
    return GoldenParity(
        sqnr_db=parity.numerics.sqnr_db,
        agreement=parity.agreement,
        n=parity.n,
        further={name: error.sqnr_db for name, error in further},
    )


def measure(bundle: Bundle, threads: int = 0) -> tuple[Parity, Numerics | None]:
    """Run a bundle on its golden images: parity, and numerics where no dataset gave any."""
    parity, before = _on_golden(bundle, threads), report.of_bundle(bundle)
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


def degenerate(reports: Sequence[Report]) -> list[VitedgeError]:
    """An error for each report whose figures prove nothing."""
    return [
        InconclusiveError(
            f"what was measured of {merged.artifact} proves nothing: {why}",
            fix="give the model trained weights, and images that show different things",
        )
        for merged in reports
        if merged.numerics and (why := merged.numerics.degenerate)
    ]


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

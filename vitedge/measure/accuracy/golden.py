"""Does a bundle compute, on this machine, what it was built from? Its golden images tell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vitedge.core import bundle as artifact
from vitedge.core.bundle import Bundle
from vitedge.core.errors import InputError
from vitedge.core.manifest import GoldenParity
from vitedge.core.numerics import EXPORT_PARITY
from vitedge.core.report import Parity
from vitedge.core.runtime import Session
from vitedge.core.spec import Precision, Task
from vitedge.measure.accuracy.validation import OutputError, predict_all
from vitedge.runtimes import open_session, runs_here

LOST_DB = 6.0
"""SQNR that another machine may lose: there the noise is twice what it was at export."""
EXACT_DB = 40.0
"""SQNR above which machines may differ as they like: 1% of the signal."""


def measure(bundle: Bundle, session: Session) -> Parity:
    """Compare the open `bundle` with FP32's outputs in it, on its golden images (k, H, W, 3)."""
    manifest, golden = bundle.manifest, bundle.golden()
    outputs = predict_all(session, golden.images)
    return compare(golden, outputs, manifest.precision, manifest.model.task, manifest.golden)


def compare(
    golden: artifact.Golden,
    outputs: NDArray[np.float32],
    precision: Precision,
    task: Task,
    at_export: GoldenParity | None,
) -> Parity:
    """Compare `outputs` (k, …) for the golden images with FP32's, and with those `at_export`."""
    at_export_db = None if at_export is None else at_export.sqnr_db
    error = OutputError()
    error.update(golden.outputs, outputs)
    numerics = error.result("golden")
    if numerics.max_abs_error is None:
        return Parity(
            n=len(outputs),
            numerics=None,
            agreement=None,
            at_export_db=at_export_db,
            broken="its outputs are not finite",
        )
    largest = float(np.abs(golden.outputs).max())
    least_db = -math.inf if at_export_db is None else min(at_export_db, EXACT_DB) - LOST_DB
    broken = ""
    if precision == "fp32" and numerics.max_abs_error > EXPORT_PARITY * largest:
        broken = f"error {numerics.max_abs_error:.1e} on outputs up to {largest:.1e} in FP32"
    elif precision != "fp32" and numerics.sqnr_db is not None and numerics.sqnr_db < least_db:
        broken = f"{numerics.sqnr_db:.1f} dB SQNR, {at_export_db:.1f} where it was exported"
    return Parity(
        n=len(outputs),
        numerics=numerics,
        agreement=None if task == "features" else _agreement(golden.outputs, outputs),
        at_export_db=at_export_db,
        broken=broken,
    )


def check(bundle: Bundle) -> GoldenParity | None:
    """Run `bundle` on its golden images, if it runs here; FP32 must agree with the graph.

    Returns what to remember of that, None where it does not run here.
    Raises InputError when it does not compute what it was built from.
    """
    if not runs_here(bundle):
        return None
    with open_session(bundle) as session:
        parity = measure(bundle, session)
    if parity.numerics is None or parity.broken:
        raise InputError(
            f"{bundle.manifest.name} does not compute what it was built from: {parity.broken}",
            fix="is the disk full? Otherwise report it with the model",
        )
    return GoldenParity(sqnr_db=parity.numerics.sqnr_db, agreement=parity.agreement, n=parity.n)


def _agreement(want: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Share of images (n, C), or of pixels (n, C, h, w), on which both choose the same class."""
    return float((want.argmax(1) == got.argmax(1)).mean())

"""The FP32 bundle that artifacts are compared with: it gives its own golden outputs, or is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from vitedge.core.bundle import Bundle, Golden
from vitedge.core.errors import LimitError
from vitedge.core.runtime import Session
from vitedge.measure.accuracy.parity import compare
from vitedge.measure.accuracy.validation import run_all
from vitedge.runtimes import open_session, runs_here

BROKEN = "the FP32 baseline is broken"


def fault(bundle: Bundle, fp32: Bundle, session: Session) -> str:
    """Why `fp32`, open as `session`, is no baseline for `bundle`; empty where it is one.

    It has to give the outputs of FP32 that lie in its own bundle, and those in the artifact's.
    """
    own = fp32.golden()
    why = _difference(fp32, own, session)
    if why:
        return f"{BROKEN}: {fp32.path} does not give its own golden outputs here: {why}"
    golden = own if bundle is fp32 else bundle.golden()
    if not own.same(golden) and (why := _difference(fp32, golden, session)):
        return f"{BROKEN}: {fp32.path} does not give FP32's golden outputs in {bundle.path}: {why}"
    return ""


def check(bundle: Bundle, fp32: Bundle, session: Session) -> None:
    """Raise LimitError where `fp32`, open as `session`, is no baseline for `bundle`."""
    raise_for(fault(bundle, fp32, session))


def raise_for(why: str) -> None:
    """Raise LimitError for a `fault`."""
    if why:
        raise LimitError(
            why,
            fix="export both again with `force=True`; where it was sound elsewhere, compare the "
            "runtime's version with the manifest's",
        )


def fault_here(
    bundle: Bundle, load: Callable[[Bundle], AbstractContextManager[Session]] = open_session
) -> str:
    """`fault` of the FP32 bundle beside `bundle`, opened by `load`.

    Empty where it was left behind, or does not run here.
    """
    fp32 = bundle.reference()
    if fp32 is None or (load is open_session and not runs_here(fp32)):
        return ""
    with load(fp32) as session:
        return fault(bundle, fp32, session)


def _difference(fp32: Bundle, golden: Golden, session: Session) -> str:
    """How what `session` gives for golden images differs from what it should give."""
    takes, images = session.inputs[0].shape[1:], golden.images.shape[1:]
    if takes != images:
        return f"it takes {takes}, and the golden images are {images}"
    names = [spec.name for spec in session.outputs]
    outputs = dict(zip(names, run_all(session, golden.images), strict=True))
    for name, want in golden.by_name(names[0]).items():
        if outputs[name].shape != want.shape:
            return f"it gives {outputs[name].shape}, not {want.shape}"
    manifest = fp32.manifest
    model, orders = manifest.model, manifest.orders
    precision, rule = manifest.precision, model.detection
    return compare(golden, outputs, precision, model.task, None, orders, rule).broken

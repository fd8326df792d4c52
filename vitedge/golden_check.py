"""Run a bundle that was just built once, where this machine can: does it compute its graph?"""

from __future__ import annotations

import numpy as np

from vitedge.artifact import Bundle
from vitedge.backends import open_session, runs_here
from vitedge.errors import InputError
from vitedge.validate import predict

PARITY_LIMIT = 1e-3
"""Largest error of an FP32 bundle on the golden images, relative to the largest logit."""


def check(bundle: Bundle) -> None:
    """Run `bundle` on its golden images, if it runs here; FP32 must agree with the graph.

    Raises InputError when it does not compute what it was built from.
    """
    if not runs_here(bundle):
        return
    made, golden = bundle.manifest, bundle.golden()
    with open_session(bundle) as session:
        outputs = predict(session, golden.images[: session.inputs[0].shape[0] or 1])
    wanted = golden.outputs[: len(outputs)]
    limit = float(np.abs(wanted).max())
    error = float(np.abs(outputs - wanted).max())
    broken = not np.isfinite(outputs).all()
    if broken or (made.precision == "fp32" and error > PARITY_LIMIT * limit):
        raise InputError(
            f"{made.name} does not compute what it was built from "
            f"(error {error:.1e} on outputs up to {limit:.1e})",
            fix="is the disk full? Otherwise report it with the model",
        )

"""The API's selftest: a machine and a runtime proved in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitedge.core.api import AnyBundles, AnyPath, several, verified
from vitedge.core.progress import Steps, steps

if TYPE_CHECKING:
    from vitedge.export.selftest.record import Selftest


def selftest(
    artifacts: AnyBundles = (),
    *,
    target: str = "",
    device: str = "",
    output: AnyPath = "selftest",
    quick: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Steps | None = None,
) -> Selftest:
    """Prove vitedge and a runtime on a machine, step by step, and keep the evidence.

    Builds, validates and times digits and a ViT-Ti in every precision of the target; looks at
    parity, at what is executed in INT8, at what has to be refused, cold start and drift. A killed
    one goes on where it stopped; a step that passed is not repeated until vitedge, the machine or
    the target change.

    Args:
        artifacts: Measure these, and build nothing; they stay as they are.
        target: A target, or a runtime for the target that fits here; default: that of the
            artifacts, or onnxruntime.
        device: Build here, and measure there: ssh://[user@]host[:port], or a target's .toml with
            one.
        output: Folder of the evidence: selftest.json, logs and artifacts.
        quick: Digits alone, and no minute of drift.
        force: Repeat what has passed.
        dry_run: Say which steps there are and how long they take; write nothing.
        progress: Where to show it; None: bars on stderr where that is a terminal.

    Returns:
        Every step, what it came to, and the `exit_code`: 0, 1 where one failed, 3 where none
        could run.

    Raises:
        InputError: no such target, artifacts of several, or a folder that is something else.
    """
    from vitedge.export.selftest.request import Request, prepare
    from vitedge.export.selftest.run import run
    from vitedge.measure.remote.address import parse_address

    bundles = tuple(verified(artifact) for artifact in several(artifacts))
    request = Request(
        bundles=bundles,
        target=target or ("" if bundles else "onnxruntime"),
        address=parse_address(device) if device else None,
        folder=Path(output),
        quick=quick,
        force=force,
    )
    with steps(progress) as shown:
        prepared = prepare(request, shown)
        return prepared.record if dry_run else run(prepared, shown)

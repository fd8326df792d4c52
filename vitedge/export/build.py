"""`vitedge build`: compile a bundle's engine on the device it is for. Needs no torch, no onnx."""

from __future__ import annotations

import os
import shutil

import msgspec

from vitedge.core import report
from vitedge.core.bundle import ENGINE, MODEL, REPORT, Bundle, amend, seal
from vitedge.core.commands import command
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.progress import Steps
from vitedge.core.publication import publish, workspace
from vitedge.core.signature import SIGNATURE
from vitedge.measure.accuracy import parity
from vitedge.measure.open_bundle import OpenBundle
from vitedge.runtimes import lower


def build(bundle: Bundle, steps: Steps, *, force: bool) -> OpenBundle:
    """Compile the engine of a bundle, check it, and put it there in one move.

    What was measured of an earlier engine is dropped with it, as is its signature; what the graph
    computes stays true.

    Raises:
        InputError: it has nothing to build, or is built and `force` is off.
        UnavailableError: this machine lacks what it takes.
    """
    path = bundle.path
    manifest, target = bundle.manifest, bundle.manifest.target
    if manifest.build is None:
        raise InputError(
            f"nothing to build: {target.runtime} runs {path} as it is",
            fix=f"measure it: {command('bench', path)}",
        )
    if MODEL not in manifest.files:
        raise InputError(f"{path} keeps no graph to build from", fix="export it again")
    if manifest.build.state == "done" and not force:
        raise InputError(
            f"{path} has its engine already", fix="pass `force=True` to build it again"
        )
    final = path.resolve()
    with workspace(final.parent) as work:
        staged = work / final.name
        staged.mkdir()
        for name in manifest.files:
            if name != ENGINE:
                shutil.copy2(bundle.runnable / name, staged / name)
        steps.say(f"building {manifest.name}")
        try:
            built = lower(staged / MODEL, target, staged, steps)
        except UnavailableError as error:
            raise UnavailableError(
                f"the engine of {path} cannot be built here: {error.what}", fix=error.fix
            ) from error
        assert built is not None  # as its manifest says
        if built.compiled is None:  # nothing here to tell: what the export found still holds
            built = msgspec.structs.replace(built, compiled=manifest.build.compiled)
        sealed = seal(staged, msgspec.structs.replace(manifest, build=built))
        sealed = amend(sealed, golden=manifest.golden or parity.at_export(sealed))
        fp32 = bundle.reference()
        before = report.read(path / REPORT)
        measured = report.Report(
            **report.identity(sealed),
            size=report.size(sealed, sealed if fp32 is bundle else fp32),
            simulation=before.simulation if before else None,
        )
        report.merge(sealed, measured)
        was_signed = os.path.lexists(path / SIGNATURE)
        publish(staged, final)
    if was_signed:
        steps.note(f"{path} was signed without this engine: sign it again")
    return OpenBundle(path, sealed.manifest)

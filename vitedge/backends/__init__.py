"""The runtimes vitedge knows, one line each, and how a verified bundle is opened on its own."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec

from vitedge import catalog, host
from vitedge.artifact import Bundle
from vitedge.backends.base import Backend, Session
from vitedge.backends.onnxruntime import ONNXRuntime
from vitedge.backends.openvino import OpenVINO
from vitedge.errors import UnavailableError

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (ONNXRuntime(), OpenVINO())}


def open_session(bundle: Bundle, threads: int = 0) -> AbstractContextManager[Session]:
    """Load a verified bundle on `threads` threads (0: every core this process may use).

    Raises UnavailableError where this machine lacks what the artifact was built for: kernels
    for other CPUs would run, and compute something else.
    """
    target = bundle.manifest.target
    here = host.describe(threads=0)
    if not catalog.runs_on(target, here):
        needs = " or ".join(target.isa) or " or ".join(target.machines)
        raise UnavailableError(
            f"{bundle.path} was built for '{target.name}' ({needs}); this machine "
            f"({here.machine}) is not that",
            fix="run it on such a device, or export for this one: 'vitedge targets list'",
        )
    threads = threads or target.threads or host.usable_cores()
    backend = BACKENDS[target.runtime]
    return backend.open(bundle.path, msgspec.structs.replace(target, threads=threads))

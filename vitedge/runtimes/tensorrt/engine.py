"""The engine beside the ONNX file it is compiled from, or why that waits for the device."""

from __future__ import annotations

from pathlib import Path

from vitedge.core import host
from vitedge.core.bundle import ENGINE, MODEL
from vitedge.core.errors import UnavailableError
from vitedge.core.manifest import Build
from vitedge.core.runtime import Progress
from vitedge.core.spec import Target
from vitedge.runtimes.tensorrt.compiler import check_options, compile_model
from vitedge.runtimes.tensorrt.coverage import compile_check, examine
from vitedge.runtimes.tensorrt.package import obstacle


def compile_engine(folder: Path, target: Target, progress: Progress, *, may_wait: bool) -> Build:
    """Compile `folder/model.onnx` into `folder/model.engine`, if that can be done here.

    Either way the record says what the compiler made of the graph, where TensorRT-RTX is installed
    to tell. Raises InputError and LimitError where the compiler does not take the graph, and
    UnavailableError where this machine cannot compile it and it may not wait for one that can.
    """
    model = folder / MODEL
    check_options(target)
    blocked = obstacle(target, host.describe(threads=0))
    if blocked and not may_wait:
        raise UnavailableError(blocked.why, fix=blocked.fix)
    if blocked:
        compiled = compile_check(model, target, progress)
        return Build(state="on the device", why=blocked.why, compiled=compiled)
    compilation = compile_model(model, target, progress)
    (folder / ENGINE).write_bytes(compilation.engine)
    if target.runtime == "tensorrt_rtx":
        return Build(state="done", compiled=examine(model, target, compilation))
    return Build(state="done", compiled=compile_check(model, target, progress))

"""TensorRT and TensorRT-RTX: the ONNX graph, and the engine compiled from it where that can be."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from vitedge.core.bundle import ENGINE, MODEL
from vitedge.core.errors import UnavailableError
from vitedge.core.host import Host
from vitedge.core.machine import describe_machine
from vitedge.core.manifest import Build, Manifest
from vitedge.core.runtime import Processor, Progress, Rule, Session, VerifiedFiles
from vitedge.core.spec import Target


class TensorRT:
    """Compiles `model.onnx` into `model.engine`; both go into the bundle."""

    name = "tensorrt"
    title = "TensorRT"
    packages: tuple[str, ...] = ("tensorrt", "tensorrt_cu13", "tensorrt_cu12")
    extra = "tensorrt"
    processor: Processor = "gpu"
    options: frozenset[str] = frozenset()
    """None: what the compiler takes is in `[compile]`."""

    def probe(self, host: Host) -> str:
        """A GPU to run on; a graph is compiled without one, if need be on the device."""
        return "" if host.gpus else "an NVIDIA GPU"

    def rules(self) -> tuple[Rule, ...]:
        """Traps of its parser and compiler."""
        from vitedge.runtimes.tensorrt.lint import RULES

        return RULES

    def files(self, manifest: Manifest) -> tuple[str, ...]:
        """The engine, and the ONNX file where that has its weights; that alone without engine."""
        if ENGINE not in manifest.files:
            return tuple(name for name in manifest.files if name.startswith(MODEL))
        if manifest.target.compile.weights == "stripped":
            return ENGINE, MODEL
        return (ENGINE,)

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> Build:
        """Save the ONNX file, weights inside, and its engine unless that waits for the device.

        Raises InputError and LimitError where the compiler does not take the graph, and
        UnavailableError where a `model` in `out` already cannot be compiled here.
        """
        saved = model == out / MODEL
        if not saved:
            import onnx

            from vitedge.graph.io import write

            write(onnx.load(model), out / MODEL)
        return _compile_engine(out, target, progress, may_wait=not saved)

    def open(self, verified: VerifiedFiles, target: Target) -> AbstractContextManager[Session]:
        """Load `model.engine` on this process's first GPU. Never yet run on one."""
        from vitedge.runtimes.tensorrt.session import open_engine

        return open_engine(verified, target)


class TensorRTRTX(TensorRT):
    """TensorRT for RTX PCs: it compiles ahead of time, with no GPU."""

    name = "tensorrt_rtx"
    title = "TensorRT-RTX"
    packages = ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12")
    extra = "tensorrt-rtx"


def _compile_engine(folder: Path, target: Target, progress: Progress, *, may_wait: bool) -> Build:
    """Compile `folder/model.onnx` into `folder/model.engine`, if that can be done here.

    Either way the record says what the compiler made of the graph, where TensorRT-RTX is installed
    to tell. Raises InputError and LimitError where the compiler does not take the graph, and
    UnavailableError where this machine cannot compile it and it may not wait for one that can.
    """
    from vitedge.runtimes.tensorrt.compiler import check_options, compile_model
    from vitedge.runtimes.tensorrt.coverage import compile_check, examine
    from vitedge.runtimes.tensorrt.package import obstacle

    model = folder / MODEL
    check_options(target)
    blocked = obstacle(target, describe_machine(threads=0))
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

"""TensorRT and TensorRT-RTX: the ONNX graph, and the engine compiled from it where that can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from vitedge.core.bundle import ENGINE, MODEL
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
    absent: Mapping[str, str] = {}
    """What of `[compile]` it does not have, and what to do without."""
    ahead_of_time = False
    """Whether it compiles for the GPUs that a target names, with none at hand, and leaves to a
    session what only that GPU can tell: it records CUDA graphs itself."""
    install_hint = (
        "; a Jetson has it from JetPack: use a virtual environment with --system-site-packages"
    )

    def probe(self, host: Host) -> str:
        """A GPU to run on; a graph is compiled without one, if need be on the device."""
        return "" if host.gpus else "an NVIDIA GPU"

    def accelerator(self, host: Host) -> str:
        """The first GPU; CUDA_VISIBLE_DEVICES says which that is."""
        return host.gpus[0].name if host.gpus else ""

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

        Either way the record says what the compiler made of the graph, where TensorRT-RTX is
        installed to tell.
        Raises InputError and LimitError where the compiler does not take the graph, and
        UnavailableError where a `model` in `out` already cannot be compiled here.
        """
        from vitedge.runtimes.tensorrt.compiler import check_options, compile_model
        from vitedge.runtimes.tensorrt.coverage import compile_check, examine
        from vitedge.runtimes.tensorrt.package import obstacle

        saved = out / MODEL
        if model != saved:
            from vitedge.graph.external import pack

            pack(model, saved)
        check_options(target)
        if blocked := obstacle(target, describe_machine(threads=0)):
            if model == saved:
                raise blocked
            compiled = compile_check(saved, target, progress)
            return Build(state="on the device", why=blocked.what, compiled=compiled)
        compilation = compile_model(saved, target, progress)
        (out / ENGINE).write_bytes(compilation.engine)
        if self.ahead_of_time:
            return Build(state="done", compiled=examine(saved, target, compilation))
        return Build(state="done", compiled=compile_check(saved, target, progress))

    def open(self, verified: VerifiedFiles, target: Target) -> AbstractContextManager[Session]:
        """Load `model.engine` on this process's first GPU. Never yet run on one."""
        from vitedge.runtimes.tensorrt.session import open_engine

        return open_engine(verified, target)

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Take the memory of this process's first GPU, in ever smaller pieces."""
        from vitedge.core.errors import UnavailableError
        from vitedge.runtimes.tensorrt.cuda import Cuda

        with ExitStack() as stack:
            cuda = Cuda(stack, self.extra)
            size_bytes = 2**34
            while size_bytes >= 2**20:
                try:
                    cuda.gpu_memory(size_bytes)
                except UnavailableError:
                    size_bytes //= 2
            yield


class TensorRTRTX(TensorRT):
    """TensorRT for RTX PCs: it compiles ahead of time, with no GPU."""

    name = "tensorrt_rtx"
    title = "TensorRT-RTX"
    packages = ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12")
    extra = "tensorrt-rtx"
    absent: Mapping[str, str] = {
        "version_compatible": "take it out of [compile]; build again for another version",
        "hardware_compatible": "list the GPUs in compute_capabilities; with none, it takes 8.0 "
        "and later",
    }
    ahead_of_time = True
    install_hint = ""

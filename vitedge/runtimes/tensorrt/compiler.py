"""One code path from an ONNX file to an engine, for TensorRT 10.3 … 11 and TensorRT-RTX.

Strongly typed: FP16, FP8 and INT8 are what the graph says, and no builder flag changes that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitedge.core.commands import command
from vitedge.core.errors import InputError, LimitError, VitedgeError
from vitedge.core.runtime import Progress
from vitedge.core.spec import Target
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt import timing_cache
from vitedge.runtimes.tensorrt.package import engine_runtime

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cudaerrormemoryallocation")


@dataclass(frozen=True)
class Compilation:
    """An engine, and how the compiler describes its layers."""

    engine: bytes
    log: str
    """Lines of `Name: …, LayerType: …`, of every compiled layer."""
    version: str
    """Of the package that compiled it."""


def compile_model(model: Path, target: Target, progress: Progress) -> Compilation:
    """Compile the ONNX file `model` as `target` says, for its GPUs.

    TensorRT compiles for the GPU at hand, TensorRT-RTX with none. Two compilations with
    TensorRT-RTX are the same to the byte. Ctrl-C stops it at the compiler's next step.

    Raises:
        UnavailableError: the package is missing.
        InputError: the graph or an option of `target` is not taken, or memory ran out.
        LimitError: a kernel needs more scratch memory than `target` allows.
    """
    check_options(target)
    trt = load(target.runtime)
    monitor = _monitor(trt, f"{engine_runtime(target).title} compiles the engine", progress)
    # in a thread: an exception that Ctrl-C raised inside a callback would end the process
    with _stdout_discarded(), ThreadPoolExecutor(1, "vitedge-compile") as pool:
        try:
            return pool.submit(_compile, trt, model, target, monitor).result()
        except BaseException:
            monitor.cancelled = True
            raise


def check_options(target: Target) -> None:
    """Raise InputError for an option of `target` that its runtime does not have."""
    options = target.compile
    if options.opt_batch > options.max_batch:
        raise InputError(
            f"target '{target.name}' is tuned for batch {options.opt_batch}, above its largest "
            f"({options.max_batch})",
            fix="set opt_batch in [compile] to at most max_batch",
        )
    runtime = engine_runtime(target)
    for option, instead in runtime.absent.items():
        if getattr(options, option):
            raise InputError(
                f"target '{target.name}': {runtime.title} has no {option}", fix=instead
            )


def _compile(trt: Any, model: Path, target: Target, monitor: Any) -> Compilation:
    log = compiler_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        raise _not_taken(parser, model, target)
    config = builder.create_builder_config()
    _configure(trt, config, target)
    config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if tensor.shape[0] == -1]
    for tensor in dynamic:
        batches = (1, target.compile.opt_batch, target.compile.max_batch)
        profile.set_shape(tensor.name, *((batch, *tensor.shape[1:]) for batch in batches))
    if dynamic:
        config.add_optimization_profile(profile)
    timings = None
    if not engine_runtime(target).ahead_of_time:
        timings = timing_cache.file(trt.__version__)
        timing_cache.read(timings, config, log)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _failed(log.last_error(), model, target)
    if timings:
        timing_cache.write(timings, config)
    return Compilation(bytes(engine), "\n".join(log.layers), trt.__version__)


def _configure(trt: Any, config: Any, target: Target) -> None:
    """Everything of `target` that is set on the builder, but shapes."""
    options = target.compile
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 is what others are compared with
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.weights == "refittable":
        config.set_flag(trt.BuilderFlag.REFIT)
    elif options.weights == "stripped":
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if engine_runtime(target).ahead_of_time and target.compute_capabilities:
        known = capabilities(trt)
        config.num_compute_capabilities = len(target.compute_capabilities)
        for index, name in enumerate(target.compute_capabilities):
            if name not in known:
                raise InputError(
                    f"TensorRT-RTX does not compile for compute capability {name}",
                    fix=f"set compute_capabilities to some of {', '.join(known)}",
                )
            config.set_compute_capability(known[name], index)


def capabilities(trt: Any) -> dict[str, Any]:
    """The compute capabilities that TensorRT-RTX compiles for, e.g. `8.6`, and its names."""
    members = trt.ComputeCapability.__members__.items()
    return {f"{n[2:-1]}.{n[-1]}": value for n, value in members if n.startswith("SM")}


def _not_taken(parser: Any, model: Path, target: Target) -> InputError:
    """The parser's first error: which node, and why not."""
    error = parser.get_error(0)
    where = f"node '{error.node_name()}' ({error.node_operator()})" if error.node() >= 0 else "it"
    why = error.desc().strip().replace("\n", " ").removeprefix("Assertion failed: ")
    more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    return InputError(
        f"{engine_runtime(target).title} does not take {model}: {where}: {why}{more}",
        fix=_lint(model, target),
    )


def _failed(why: str, model: Path, target: Target) -> VitedgeError:
    """The error for the compiler's last one."""
    title = engine_runtime(target).title
    if "workspace limit" in why:
        return LimitError(
            f"{title} has no kernel for a layer of {model} within {target.compile.workspace_mib} "
            f"MiB of scratch memory: {why}",
            fix=f"raise workspace_mib in [compile] of target '{target.name}'; 0 is no limit",
        )
    if any(sign in why.lower() for sign in _OUT_OF_MEMORY):
        fix = "stop what else uses the GPU, or lower workspace_mib and max_batch in [compile]"
        return InputError(f"{title} ran out of device memory on {model}: {why}", fix=fix)
    fix = _lint(model, target)
    return InputError(f"{title} cannot compile {model}: {why}", fix=fix)


def compiler_log(trt: Any) -> Any:
    """A new `ILogger` that keeps `layers`, `errors` and `warnings`, each a list of messages.

    `layers` are the messages that describe compiled layers. It prints nothing. `last_error()` is
    a line.
    """

    class CompilerLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.layers: list[str] = []
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(message)
            elif "LayerType: " in message:
                self.layers.append(message)

        def last_error(self) -> str:
            return " ".join(self.errors[-1].split()) if self.errors else "it does not say why"

    return CompilerLog()


def _monitor(trt: Any, step: str, progress: Progress) -> Any:
    """A new `IProgressMonitor` that shows all phases as one `step`; `cancelled` stops the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._phases: dict[str | None, tuple[str | None, int, int]] = {}
            self._furthest = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases[name] = (parent, max(1, steps), 0)

        def step_complete(self, name: str, index: int) -> bool:
            if name in self._phases:
                self._phases[name] = (*self._phases[name][:2], index + 1)
                share = 0.0
                phase: str | None = name
                while phase in self._phases:  # one step of its parent's
                    phase, steps, done = self._phases[phase]
                    share = min(1.0, (done + share) / steps)
                self._furthest = max(self._furthest, share)
                progress(step, self._furthest, 1.0)
            return not self.cancelled

        def phase_finish(self, name: str) -> None:
            self._phases.pop(name, None)

    return Monitor()


@contextmanager
def _stdout_discarded() -> Iterator[None]:
    """Drop what native code prints: stdout belongs to what the user asked for, JSON above all.

    The compiler's errors are in its log.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    try:
        yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)  # else it is written when the process ends
        os.dup2(stdout, 1)
        os.close(stdout)


def _lint(model: Path, target: Target) -> str:
    """Where to see what is wrong."""
    return f"see {command('inspect', model)} with `target={target.name!r}`"

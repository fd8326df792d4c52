"""An engine that runs on the GPU of this machine. Never yet run on one: read it with that in mind.

Memory is allocated once for the largest batch; what one batch size queues is one CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.bundle import ENGINE, MODEL
from vitedge.core.commands import command
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.runtime import Session, TensorSpec, VerifiedFiles
from vitedge.core.spec import Target
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt.compiler import compiler_log
from vitedge.runtimes.tensorrt.cuda import Cuda
from vitedge.runtimes.tensorrt.package import engine_runtime

Shapes = dict[str, tuple[int, ...]]


@contextmanager
def open_engine(verified: VerifiedFiles, target: Target) -> Iterator[Session]:
    """Deserialise `model.engine` of a bundle.

    Raises:
        InputError: there is no engine yet.
        UnavailableError: a package, the driver or memory is missing, or the engine is of another
            GPU or version.
    """
    bundle = verified.folder
    if ENGINE not in verified.names:
        raise InputError(
            f"{bundle} has no engine yet: it is built on the device",
            fix=f"run there: {command('build', bundle)}",
        )
    trt, runtime = load(target.runtime), engine_runtime(target)
    log = compiler_log(trt)
    with ExitStack() as stack:
        cuda = Cuda(stack, runtime.extra)
        loader = trt.Runtime(log)
        if target.compile.version_compatible:  # such an engine brings its own runtime
            loader.engine_host_code_allowed = verified.allow_host_code
        engine = loader.deserialize_cuda_engine(verified.path(ENGINE).read_bytes())
        if engine is None:
            raise UnavailableError(
                f"{runtime.title} {trt.__version__} cannot load the engine of {bundle} "
                f"on this GPU: {log.last_error()}",
                fix=f"build it here with `force=True`: {command('build', bundle)}",
            )
        if target.compile.weights == "stripped":
            _refit(trt, engine, verified.path(MODEL), log)
        settings = []
        if runtime.ahead_of_time:
            settings.append(engine.create_runtime_config())
            settings[0].cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        context = engine.create_execution_context(*settings)
        if context is None:
            raise UnavailableError(
                f"the GPU has too little memory for the engine of {bundle}",
                fix="stop what else uses it, or build with a smaller max_batch in [compile]",
            )
        session = _EngineSession(trt, engine, context, cuda, records=not runtime.ahead_of_time)
        stack.callback(session.forget)
        yield session


def _refit(trt: Any, engine: Any, model: Path, log: Any) -> None:
    """Put the weights of the bundle's ONNX file into an engine that was built without."""
    refitter = trt.Refitter(engine, log)
    fits = trt.OnnxParserRefitter(refitter, log).refit_from_file(str(model))
    if not fits or not refitter.refit_cuda_engine():
        raise UnavailableError(
            f"the weights of {model} do not fit its engine",
            fix=f"build it here with `force=True`: {command('build', model.parent)}",
        )


class _EngineSession:
    def __init__(self, trt: Any, engine: Any, context: Any, cuda: Cuda, *, records: bool) -> None:
        self._engine, self._context, self._cuda, self._records = engine, context, cuda, records
        self._graph: Any | None = None
        self._shapes: Shapes = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: _spec(trt, engine, name) for name in names}
        read = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs = tuple(specs[name] for name in names if name in read)
        self.outputs = tuple(specs[name] for name in names if name not in read)
        self._addresses: dict[str, int] = {}
        """Memory of each tensor for the largest batch, on the GPU."""
        self._hosts: dict[str, NDArray[Any]] = {}
        """Likewise on the host, flat."""
        self._set_shapes({spec.name: self._range(spec)[1] for spec in self.inputs})
        for name, shape in self._shapes.items():
            dtype = np.dtype(specs[name].dtype)
            size_bytes = math.prod(shape) * dtype.itemsize
            self._addresses[name] = cuda.gpu_memory(size_bytes)
            self._hosts[name] = cuda.pinned_memory(size_bytes).view(dtype)
            context.set_tensor_address(name, self._addresses[name])

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        shapes = {spec.name: feed[spec.name].shape for spec in self.inputs}
        for spec in self.inputs:
            self._check(spec, shapes[spec.name])
        if not shapes.items() <= self._shapes.items():
            self._set_shapes(shapes)
        for name in shapes:
            np.copyto(self._view(name), feed[name])
        if self._graph is None:
            self._queue()
        else:
            self._cuda.launch(self._graph)
        self._cuda.synchronize()
        results = {spec.name: self._view(spec.name).copy() for spec in self.outputs}
        if self._records and self._graph is None:  # a shape's first run settles what is recorded
            self._graph = self._cuda.capture(self._queue)
            self._records = self._graph is not None
        return results

    def forget(self) -> None:
        """Free what was recorded."""
        if self._graph is not None:
            self._cuda.discard(self._graph)
            self._graph = None

    def _queue(self) -> None:
        """Everything of one run, on the stream."""
        for spec in self.inputs:
            self._cuda.copy_to_gpu(self._addresses[spec.name], self._view(spec.name))
        if not self._context.execute_async_v3(self._cuda.stream):
            what, fix = "TensorRT cannot run the engine", "is the GPU out of memory?"
            raise UnavailableError(what, fix=fix)
        for spec in self.outputs:
            self._cuda.copy_to_host(self._view(spec.name), self._addresses[spec.name])

    def _view(self, name: str) -> NDArray[Any]:
        """The host's copy of a tensor, in its shape of this run."""
        shape = self._shapes[name]
        return self._hosts[name][: math.prod(shape)].reshape(shape)

    def _set_shapes(self, inputs: Shapes) -> None:
        """Make the next runs take inputs of these shapes."""
        self.forget()
        for name, shape in inputs.items():
            self._context.set_input_shape(name, shape)
        outputs = {s.name: tuple(self._context.get_tensor_shape(s.name)) for s in self.outputs}
        self._shapes = {**inputs, **outputs}

    def _range(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The smallest and the largest shape that an input takes."""
        if None not in spec.shape:
            fixed = tuple(self._engine.get_tensor_shape(spec.name))
            return fixed, fixed
        low, _, high = self._engine.get_tensor_profile_shape(spec.name, 0)
        return tuple(low), tuple(high)

    def _check(self, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        low, high = self._range(spec)
        fits = len(shape) == len(low)
        if fits and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            return
        raise InputError(
            f"'{spec.name}' of shape {shape} is outside what the engine takes: {low} to {high}",
            fix="change the batch; or max_batch in [compile] of the target, and export again",
        )


def _spec(trt: Any, engine: Any, name: str) -> TensorSpec:
    shape = tuple(None if size == -1 else int(size) for size in engine.get_tensor_shape(name))
    return TensorSpec(name, shape, str(np.dtype(trt.nptype(engine.get_tensor_dtype(name)))))

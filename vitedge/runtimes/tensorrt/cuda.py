"""The few CUDA calls of a session, through NVIDIA's own bindings. Never yet run on a GPU."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import UnavailableError, VitedgeError, missing


class Cuda:
    """One stream and its memory on this process's current GPU; freed when `stack` closes."""

    def __init__(self, stack: ExitStack, extra: str) -> None:
        """Raises UnavailableError where bindings (of `extra`), driver or GPU are missing."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise missing("cuda-bindings", extra) from error
        self._api, self._stack = runtime, stack
        self._stream = self._check(runtime.cudaStreamCreate())
        stack.callback(runtime.cudaStreamDestroy, self._stream)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    def gpu_memory(self, size_bytes: int) -> int:
        """Allocate on the GPU; returns the address."""
        address: int = self._check(self._api.cudaMalloc(size_bytes))
        self._stack.callback(self._api.cudaFree, address)
        return address

    def pinned_memory(self, size_bytes: int) -> NDArray[np.uint8]:
        """Allocate page-locked memory on the host, which copies run alongside."""
        address: int = self._check(self._api.cudaMallocHost(size_bytes))
        self._stack.callback(self._api.cudaFreeHost, address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def copy_to_gpu(self, address: int, host: NDArray[Any]) -> None:
        """Queue a copy of all of `host`, which is contiguous."""
        self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def copy_to_host(self, host: NDArray[Any], address: int) -> None:
        """Queue a copy into all of `host`, which is contiguous."""
        self._copy(host.ctypes.data, address, host.nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, to: int, source: int, size_bytes: int, kind: str) -> None:
        kinds = self._api.cudaMemcpyKind
        self._check(
            self._api.cudaMemcpyAsync(to, source, size_bytes, getattr(kinds, kind), self._stream)
        )

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        self._check(self._api.cudaStreamSynchronize(self._stream))

    def capture(self, queue: Callable[[], None]) -> Any | None:
        """Record what `queue` puts on the stream as a graph; None where that cannot be recorded."""
        api, queued = self._api, False
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(api.cudaStreamBeginCapture(self._stream, mode))
        with contextlib.suppress(VitedgeError):
            queue()
            queued = True
        ended, recorded = api.cudaStreamEndCapture(self._stream)
        if ended != api.cudaError_t.cudaSuccess or not queued:
            api.cudaGetLastError()  # forget it
            return None
        graph = self._check(api.cudaGraphInstantiate(recorded, 0))
        api.cudaGraphDestroy(recorded)
        return graph

    def launch(self, graph: Any) -> None:
        """Queue a recorded graph."""
        self._check(self._api.cudaGraphLaunch(graph, self._stream))

    def discard(self, graph: Any) -> None:
        """Free a recorded graph."""
        self._api.cudaGraphExecDestroy(graph)

    def _check(self, result: tuple[Any, ...]) -> Any:
        """The value of a call's result. Raises UnavailableError for CUDA's errors."""
        error, *values = result
        if error == self._api.cudaError_t.cudaSuccess:
            return values[0] if values else None
        if error == self._api.cudaError_t.cudaErrorMemoryAllocation:
            raise UnavailableError(
                "the GPU has no memory left", fix="stop what else uses it, or take a smaller batch"
            )
        _, text = self._api.cudaGetErrorString(error)
        raise UnavailableError(
            f"CUDA fails: {text.decode()}", fix="check the GPU and its driver with nvidia-smi"
        )

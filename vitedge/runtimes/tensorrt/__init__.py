"""TensorRT and TensorRT-RTX: the ONNX graph, and the engine compiled from it where that can be."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from vitedge.core.bundle import MODEL
from vitedge.core.manifest import Build
from vitedge.core.runtime import Progress, Session
from vitedge.core.spec import Target
from vitedge.runtimes.tensorrt.engine import make
from vitedge.runtimes.tensorrt.session import open_engine


class TensorRT:
    """Compiles `model.onnx` into `model.engine`; both go into the bundle."""

    def __init__(self, name: Literal["tensorrt", "tensorrt_rtx"]) -> None:
        self.name: str = name

    def build(self, model: Path, target: Target, out: Path, progress: Progress) -> Build:
        """Save the ONNX file, weights inside, and its engine unless that waits for the device.

        Raises InputError and LimitError where the compiler does not take the graph.
        """
        import onnx

        from vitedge.graph.io import write

        write(onnx.load(model), out / MODEL)
        return make(out, target, progress)

    def open(self, bundle: Path, target: Target) -> AbstractContextManager[Session]:
        """Load `bundle/model.engine` on this process's first GPU. Never yet run on one."""
        return open_engine(bundle, target)

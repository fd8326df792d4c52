"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core.errors import missing
from vitedge.core.runtime import Progress, Session, TensorSpec
from vitedge.core.spec import Target

_NUMPY = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


class ONNXRuntime:
    """Runs `model.onnx` as it is."""

    name = "onnxruntime"

    def build(self, model: Path, target: Target, out: Path, progress: Progress) -> None:
        """Save the ONNX file as `model.onnx`, weights inside."""
        import onnx

        from vitedge.graph.io import write

        write(onnx.load(model), out / "model.onnx")

    @contextmanager
    def open(self, bundle: Path, target: Target) -> Iterator[Session]:
        """Load `bundle/model.onnx` with the target's session options."""
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise missing("onnxruntime", "onnxruntime") from error

        options = ort.SessionOptions()
        options.intra_op_num_threads = target.threads
        options.log_severity_level = 3
        for key, value in target.options.items():
            options.add_session_config_entry(key, value)
        yield _Session(
            ort.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
        )


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return dict(zip(self._names, self._session.run(self._names, dict(feed)), strict=True))


def _spec(node: Any) -> TensorSpec:
    shape = tuple(dim if isinstance(dim, int) else None for dim in node.shape)
    return TensorSpec(node.name, shape, str(np.dtype(_NUMPY[node.type])))

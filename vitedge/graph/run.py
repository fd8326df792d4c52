"""Run a graph here while it is being made: a few images once, so memory matters more than speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray


class Runner:
    """An ONNX file on ONNX Runtime's CPU, without the copies a session keeps to run for long.

    What lies between Q and DQ is computed in float, as the graph says: fused INT8 kernels saturate
    on CPUs without VNNI.
    """

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: NDArray[Any], **others: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of one run, in the graph's order; `others` are further inputs by name."""
        outputs: list[NDArray[Any]] = self._session.run(None, {self._input: images, **others})
        return outputs

"""Run a graph here while it is being made: a few images once, so memory matters more than speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray


class Runner:
    """An ONNX file on ONNX Runtime's CPU, without the copies a session keeps to run for long."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    @property
    def types(self) -> list[str]:
        """The type of every output as ONNX Runtime names it: `tensor(float)`, …"""
        return [output.type for output in self._session.get_outputs()]

    def __call__(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of one run, in the graph's order."""
        outputs: list[NDArray[Any]] = self._session.run(None, {self._input: images})
        return outputs

"""Run a graph here while it is being made, on ONNX Runtime's CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from vitedge.core.host import usable_cores

Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""

_RUNS_AT_A_TIME = 2
"""Of `Runner.stream`: a core that waits in one run works on the other."""


class Runner:
    """An ONNX file, open to run on a few images; on many, where it is to run `often`.

    What lies between Q and DQ is computed in float, as the graph says: fused INT8 kernels saturate
    on CPUs without VNNI.

    A session that runs often keeps copies of its weights: a sixth faster, for the size of the
    model in memory.
    """

    def __init__(self, path: Path, *, often: bool = False, as_written: bool = False) -> None:
        """With `as_written` nothing is fused: Q and DQ round, what is between is float."""
        options = ort.SessionOptions()
        if as_written:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if often:
            options.intra_op_num_threads = max(1, usable_cores() + 1 - _RUNS_AT_A_TIME)
        options.enable_cpu_mem_arena = often
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_prepacking", "0" if often else "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    @property
    def types(self) -> list[str]:
        """The type of every output as ONNX Runtime names it: `tensor(float)`, …"""
        return [output.type for output in self._session.get_outputs()]

    def __call__(self, images: NDArray[Any], **others: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of one run, in the graph's order; `others` are further inputs by name."""
        outputs: list[NDArray[Any]] = self._session.run(None, {self._input: images, **others})
        return outputs

    def stream(
        self, batches: Iterator[NDArray[Any]]
    ) -> Iterator[tuple[NDArray[Any], list[NDArray[Any]]]]:
        """Every batch with the outputs of its run, in order; the next ones run meanwhile.

        Of a Runner that runs `often`.
        """
        running: deque[tuple[NDArray[Any], Future[list[NDArray[Any]]]]] = deque()
        with ThreadPoolExecutor(_RUNS_AT_A_TIME, thread_name_prefix="vitedge-run") as pool:
            for batch in batches:
                running.append((batch, pool.submit(self, batch)))
                if len(running) == _RUNS_AT_A_TIME:
                    done, outputs = running.popleft()
                    yield done, outputs.result()
            while running:
                done, outputs = running.popleft()
                yield done, outputs.result()

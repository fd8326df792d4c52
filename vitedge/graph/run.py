"""Run a graph here while it is being made, on ONNX Runtime's CPU: its outputs, or any tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper

from vitedge.core.complaints import RuntimeFailure, complaint
from vitedge.core.errors import SharedError
from vitedge.core.machine import usable_cores
from vitedge.core.numerics import fill_batch
from vitedge.core.runtime import TensorSpec
from vitedge.core.spec import Detection

Progress = Callable[[str, int, int], None]
"""Called with what is going on, steps done, steps in all."""

Shapes = Mapping[str | None, tuple[int, ...]]
"""The shape of every computed tensor on some images."""

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
        options.log_severity_level = 4  # what it raises says as much
        options.add_session_config_entry("session.disable_prepacking", "0" if often else "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        with _explained("does not take"):
            self._session = ort.InferenceSession(
                path,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=["Pad_Fusion"],  # see `graph.pads`
            )
        self._input = self._session.get_inputs()[0].name

    @property
    def types(self) -> list[str]:
        """The type of every output as ONNX Runtime names it: `tensor(float)`, …"""
        return [output.type for output in self._session.get_outputs()]

    @property
    def outputs(self) -> list[str]:
        """The names of every output, in the graph's order."""
        return [output.name for output in self._session.get_outputs()]

    def __call__(self, images: NDArray[Any], **others: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of one run, in the graph's order; `others` are further inputs by name."""
        with _explained("cannot run"):
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


@contextmanager
def _explained(verb: str) -> Iterator[None]:
    """One message for what ONNX Runtime raises over a graph, with the node it is about."""
    try:
        yield
    except Exception as error:
        raise RuntimeFailure(
            f"ONNX Runtime {verb} the model's graph: {complaint(error)}",
            fix="try another `opset` or `precision`, and report it with the model",
        ) from error


def tapped(
    path: Path,
    outputs: Sequence[str],
    nodes: Sequence[NodeProto] = (),
    *,
    often: bool = False,
    as_written: bool = False,
) -> Runner:
    """Run the graph of the ONNX file `path` with other `outputs`, of more `nodes` too."""
    model = onnx.load(path, load_external_data=False)
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    tapped_path = path.with_name("tapped.onnx")  # shares its external data
    onnx.save(model, tapped_path)
    try:
        return Runner(tapped_path, often=often, as_written=as_written)
    finally:
        tapped_path.unlink()


def shapes(path: Path, images: NDArray[Any]) -> Shapes:
    """The shape of every tensor that the ONNX file `path` computes of `images`.

    None of sequences and of what subgraphs compute.
    """
    names = list(_makers(path))
    graph = onnx.load(path, load_external_data=False).graph  # ONNX Runtime has no Shape of FP8
    sources = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    nodes = [
        helper.make_node("Shape", [sources.get(name, name)], [f"{name}/shape_of"]) for name in names
    ]
    # ONNX Runtime 1.31 inlines an `If` of a constant before what the branch reads
    run = tapped(path, [node.output[0] for node in nodes], nodes, as_written=True)
    return {name: tuple(dims.tolist()) for name, dims in zip(names, run(images), strict=True)}


def _makers(path: Path) -> dict[str, str]:
    """The node of every tensor that the ONNX file `path` computes; none of sequences."""
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    kinds = {value.name: value.type.WhichOneof("value") for value in inferred}
    makers = {}
    for node in model.graph.node:
        usual = None if any(a.HasField("g") for a in node.attribute) else "tensor_type"
        names = [name for name in node.output if kinds.get(name, usual) == "tensor_type"]
        makers.update(dict.fromkeys(filter(None, names), node.name))
    return makers


def check_finite(outputs: NDArray[np.float32], fp32: Path, images: NDArray[np.uint8]) -> None:
    """Refuse `outputs` of the ONNX file `fp32` on one run's `images` where they are not finite.

    Raises InputError naming the first node that gives NaN or, without any, infinity.
    """
    if np.isfinite(outputs).all():
        return
    makers = _makers(fp32)
    values = dict(zip(makers, tapped(fp32, list(makers))(images), strict=True))
    floats = {name: value for name, value in values.items() if value.dtype.kind == "f"}
    for kind, is_kind in (("NaN", np.isnan), ("infinity", np.isinf)):
        for name, value in floats.items():
            if is_kind(value).any():
                raise SharedError(
                    f"the FP32 model gives {kind} from {makers[name]} on (tensor '{name}')",
                    fix="check the weights and the preprocessing",
                )


@dataclass(frozen=True)
class Fp32Graph:
    """The FP32 ONNX file, and how close it is to its source."""

    path: Path
    input: TensorSpec
    output: TensorSpec
    """The main one."""
    max_abs_error: float
    """Of all outputs."""
    max_rel_error: float
    further: tuple[TensorSpec, ...] = ()
    """The other outputs."""
    detection: Detection | None = None
    """How the first two outputs of a detector are read; None of any other."""
    orders: Mapping[str, str] = field(default_factory=dict)
    """The outputs whose order scores choose, and the node that does, as `graph.selection`."""

    def outputs(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Every output (n, …) for `images` (n, H, W, 3), on ONNX Runtime, the main one first.

        Raises InputError, naming the layer, where one is NaN or infinite.
        """
        fixed = self.input.shape[0] or len(images)
        filled = fill_batch(images, fixed)
        run = Runner(self.path)
        runs = []
        for start in range(0, len(filled), fixed):
            part = filled[start : start + fixed]
            runs.append(run(part))
            for output in runs[-1]:
                check_finite(output, self.path, part)
        return [np.concatenate(parts)[: len(images)] for parts in zip(*runs, strict=True)]

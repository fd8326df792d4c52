"""ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitedge.core import onnx_outline
from vitedge.core.builds import build
from vitedge.core.bundle import MODEL
from vitedge.core.catalog import in_range
from vitedge.core.host import Host
from vitedge.core.manifest import Manifest
from vitedge.core.runtime import (
    Executed,
    Processor,
    Progress,
    Rule,
    Session,
    TensorSpec,
    VerifiedFiles,
)
from vitedge.core.spec import Target
from vitedge.runtimes.package import load

_NUMPY = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}


CONTRIB = "model.onnxruntime.onnx"
"""The graph in ONNX Runtime's own operators, whole."""
CONTRIB_SINCE = "1.20"
"""The first version that has all of them."""
QUANTIZED_PRODUCTS = (
    *("QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger"),
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "QAttention"),
)
FLOAT_PRODUCTS = (
    *("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv"),
    *("Attention", "MultiHeadAttention"),
)
"""Operators with multiply-accumulates of a graph that it has optimized."""


class ONNXRuntime:
    """Runs `model.onnx` as it is, or the same in ONNX Runtime's own operators beside it."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    packages: tuple[str, ...] = ("onnxruntime", "onnxruntime-gpu")
    extra = "onnxruntime"
    processor: Processor = "cpu"
    options = frozenset(
        (
            *("session.disable_quant_qdq", "session.disable_double_qdq_remover"),
            *("session.enable_quant_qdq_cleanup", "session.qdqisint8allowed"),
            *("session.x64quantprecision", "session.set_denormal_as_zero"),
            *("session.disable_prepacking", "session.dynamic_block_base"),
            *("session.force_spinning_stop", "session.intra_op_thread_affinities"),
            *("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"),
            *("session.use_env_allocators", "session.use_device_allocator_for_initializers"),
            *("optimization.enable_gelu_approximation", "mlas.enable_gemm_fastmath_arm64_bfloat16"),
            "optimization.disable_specified_optimizers",
        )
    )
    """Session configuration; none that names a file."""

    def probe(self, host: Host) -> str:
        """Every machine has a CPU."""
        return ""

    def accelerator(self, host: Host) -> str:
        """None."""
        return ""

    def rules(self) -> tuple[Rule, ...]:
        """Traps of INT8 on CPUs."""
        from vitedge.runtimes.lint.cpu import RULES

        return RULES

    def files(self, manifest: Manifest) -> tuple[str, ...]:
        """The graph that the version installed takes, and its data where that lies beside it."""
        plain = tuple(name for name in manifest.files if name in (MODEL, f"{MODEL}.data"))
        installed = next(filter(None, map(build, self.packages)), CONTRIB_SINCE)
        taken = in_range(installed, (CONTRIB_SINCE, ""))
        return (CONTRIB,) if CONTRIB in manifest.files and taken else plain

    def lower(self, model: Path, target: Target, out: Path, progress: Progress) -> None:
        """Save the ONNX file as `model.onnx`, weights inside where they fit.

        Where the target says so and it is not too large, beside it in ONNX Runtime's operators.
        """
        from vitedge.graph.external import pack

        pack(model, out / MODEL)
        if target.contrib and not (out / f"{MODEL}.data").exists():
            from vitedge.graph.contrib import rewrite

            rewrite(out / MODEL, out / CONTRIB)

    @contextmanager
    def open(self, verified: VerifiedFiles, target: Target) -> Iterator[Session]:
        """Load the graph with the target's session options."""
        with self.open_file(verified.path(verified.names[0]), target) as session:
            yield session

    @contextmanager
    def open_file(self, model: Path, target: Target) -> Iterator[Session]:
        """Load the ONNX file `model` with the target's session options."""
        yield _ONNXRuntimeSession(self._session(model, target))

    def executed(self, verified: VerifiedFiles, target: Target) -> Executed:
        """As the graph says that it optimized."""
        return self.executed_file(verified.path(verified.names[0]), target)

    def executed_file(self, model: Path, target: Target) -> Executed:
        """Of the ONNX file `model`, with the target's session options."""
        with tempfile.TemporaryDirectory(prefix="vitedge-") as folder:
            optimized = Path(folder) / MODEL
            self._session(model, target, optimized)
            operators = onnx_outline.read(optimized.read_bytes()).graph.operators
        names: Counter[str] = Counter()
        for (_, name, *_), count in operators.items():
            names[name] += count
        quantized = sum(names[name] for name in QUANTIZED_PRODUCTS)
        return Executed(quantized, quantized + sum(names[name] for name in FLOAT_PRODUCTS))

    def _session(self, model: Path, target: Target, optimized: Path | None = None) -> Any:
        """Its own session of `model`; the graph that it executes goes to `optimized`."""
        ort = load(self.name)
        ort.set_default_logger_severity(4)  # it logs to the terminal itself
        options = ort.SessionOptions()
        options.intra_op_num_threads = target.threads
        options.log_severity_level = 4  # what it raises says as much, and names are made printable
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        for key, value in target.options.items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _ONNXRuntimeSession:
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

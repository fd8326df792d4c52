"""Traps of ONNX Runtime in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vitedge.core.runtime import Complaint, Rule
from vitedge.core.spec import Target
from vitedge.graph.structure import Structure
from vitedge.runtimes.lint import cpu
from vitedge.runtimes.onnxruntime_web.session import PROVIDER


def _half(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.options.get(PROVIDER, "wasm") != "wasm":
        return
    for node, _ in graph.products():
        if any(value is not None and value.dtype == ir.DataType.FLOAT16 for value in node.inputs):
            yield node.name, "FP16 product: WASM computes in FP32, with a Cast on either side"


def _integers(graph: Structure, target: Target) -> Iterator[Complaint]:
    if target.options.get(PROVIDER) != "webgpu":
        return
    for node, operands in graph.products():
        if None not in operands:
            yield node.name, "WebGPU has no INT8 product: it dequantizes, and multiplies floats"


RULES = (
    *cpu.RULES,
    Rule("fp16-on-wasm", "slower", "export FP32, or for WebGPU", _half),
    Rule("int8-on-webgpu", "INT8 lost", "export FP16, or INT8 for WASM", _integers),
)

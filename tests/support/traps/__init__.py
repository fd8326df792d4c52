"""Small graphs with one thing wrong each, and how a compiled engine proves what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from tests.support.qdq import QDQ
from tests.support.rtx import Compiled, compiled

SCORES, CONTEXT = "scores/MatMul", "context/MatMul"
Proof = Callable[[Compiled, str], bool]


@dataclass(frozen=True)
class Trap:
    """The rule that must find it, where, and what the compiler then says."""

    rule: str
    make: Callable[[], ModelProto]
    node: str
    proof: Proof


def rejected(compiled, node):
    return bool(compiled.errors)


def lost(compiled, node):
    """It compiles, and the layer of `node` computes in float16."""
    made = [layer for layer in compiled.layers if node in layer.nodes]
    return bool(made) and not compiled.int8(node)


def apart(compiled, node):
    """Attention is several kernels; fused it is one."""
    return bool(compiled.layers) and not compiled.fused(SCORES, CONTEXT)


def as_int8(compiled, node):
    return compiled.int8("y.m/MatMul")


def without_casts(compiled, node):
    """One LayerNormalization is computed in float32: its kernel begins and ends with a Cast."""
    graph = QDQ()
    graph.norm("x", "y")
    (good,) = _kernels(graph.model())
    (bad,) = compiled.layers
    return "Cast" in good and "Cast" not in bad.name


def _kernels(model):
    return [layer.name for layer in compiled(model).layers]


def taken(compiled, node):
    """It compiles: what is wrong with it is no matter of the compiler's."""
    return not compiled.errors


def linear(floats=np.float16, **weight):
    """A Linear whose weight is quantized as asked."""
    graph = QDQ(floats)
    graph.linear("x", "y", **weight)
    return graph


def read(floats=np.float16, **activation):
    """A Linear whose activation is quantized otherwise."""
    graph = QDQ(floats)
    graph.linear(graph.activation("x", **activation), "y")
    return graph

"""How much of what a graph plans in INT8 the compiler runs so, and whether attention is one kernel.

With TensorRT-RTX that needs no GPU: INT8 is lost without a word, so this is where one learns it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vitedge.core.errors import UnavailableError
from vitedge.core.manifest import Compiled
from vitedge.core.runtime import Progress, runtime_of
from vitedge.core.spec import Compile, Target
from vitedge.runtimes.package import load
from vitedge.runtimes.tensorrt.build_log import CompiledLayer, layers
from vitedge.runtimes.tensorrt.compiler import Compilation, capabilities, compile_model

_FALLBACK = "8.6"
"""Ampere, as is Orin's 8.7."""


@dataclass(frozen=True)
class AttentionNodes:
    """The nodes of one attention."""

    qk: str | None
    softmax: str | None
    pv: str | None


@dataclass(frozen=True)
class Int8Plan:
    """What a graph asks of the compiler."""

    products: tuple[str, ...]
    """Nodes whose two operands are INT8."""
    attentions: tuple[AttentionNodes, ...]


def compile_check(model: Path, target: Target, progress: Progress) -> Compiled | None:
    """Compile `model` with TensorRT-RTX and say what became of INT8; None if it is not installed.

    A GPU that TensorRT-RTX does not know (Orin's 8.7, Thor's 11.0) is stood in for by 8.6. Raises
    InputError where the graph is not taken.
    """
    try:
        known = capabilities(load("tensorrt_rtx"))
    except UnavailableError:
        return None
    shared = (name for name in target.compute_capabilities if name in known)
    capability = next(shared, _FALLBACK)
    options = Compile(max_batch=target.compile.max_batch, opt_batch=target.compile.opt_batch)
    stand_in = msgspec.structs.replace(
        target, runtime="tensorrt_rtx", compute_capabilities=(capability,), compile=options
    )
    return examine(model, stand_in, compile_model(model, stand_in, progress))


def examine(model: Path, target: Target, compilation: Compilation) -> Compiled | None:
    """What `compilation` says of the INT8 in `model`; None where the package onnx is missing."""
    try:
        plan = int8_plan(model)
    except ImportError:  # a device that only builds
        return None
    compiled = layers(compilation.log)
    lost = dict(lost_products(compiled, plan))
    return Compiled(
        compiler=f"{runtime_of(target).title} {compilation.version}",
        compute_capability=", ".join(target.compute_capabilities) or "8.0 and later",
        planned=len(plan.products),
        int8=len(plan.products) - len(lost),
        attention=len(plan.attentions),
        fused=sum(
            any(_holds(layer, attention) for layer in compiled) for attention in plan.attentions
        ),
        lost=lost,
    )


def int8_plan(model: Path) -> Int8Plan:
    """The products of an ONNX file that are INT8, and its attentions."""
    import onnx

    from vitedge.graph.match import attentions
    from vitedge.graph.structure import Structure

    graph = Structure(onnx.load(model, load_external_data=False))
    fusible = (AttentionNodes(a.qk.name, a.softmax.name, a.pv.name) for a in attentions(graph))
    products = (node.name or "" for node, operands in graph.products() if None not in operands)
    return Int8Plan(tuple(products), tuple(fusible))


def lost_products(compiled: Sequence[CompiledLayer], plan: Int8Plan) -> Iterator[tuple[str, str]]:
    """The planned products that no kernel computes in INT8, and what computes them instead."""
    kernels = [layer for layer in compiled if layer.multiplies]
    for product in plan.products:
        holding = [layer for layer in kernels if product in layer.nodes]
        if not holding:
            yield product, "no matrix kernel of its own: in generated code, or folded"
        for layer in holding:
            if layer.converts or _int8_operands(layer) < _needed(product, layer, plan):
                yield product, f"{layer}{', made floats first' if layer.converts else ''}"
                break


def _int8_operands(layer: CompiledLayer) -> int:
    """Matrices in INT8 that a kernel reads; its scales, biases and masks never are."""
    return (*layer.inputs, *layer.constants).count("Int8")


def _needed(product: str, layer: CompiledLayer, plan: Int8Plan) -> int:
    """INT8 matrices that `layer` reads if it computes `product` in INT8.

    Both operands; merged Linears share them. Of P·V in a fused attention only V is read, and Q and
    K where Q·Kᵀ is INT8, too.
    """
    for attention in plan.attentions:
        if product == attention.pv and _holds(layer, attention):
            return 3 if attention.qk in plan.products else 1
    return 2


def _holds(layer: CompiledLayer, attention: AttentionNodes) -> bool:
    """Whether `layer` is the whole of `attention` in one kernel."""
    parts = {attention.qk, attention.softmax, attention.pv}
    return layer.multiplies and parts <= set(layer.nodes)

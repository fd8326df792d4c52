"""How much of a graph's INT8 or FP8 the compiler runs so, and whether attention is one kernel.

With TensorRT-RTX that needs no GPU: either is lost without a word, so this is where one learns it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
_FP8_FALLBACK = "8.9"
"""The first with FP8: Hopper's 9.0, Blackwell's 10.x and Thor's 11.0 are not known, either."""
_FP8 = "FP8"
_INT8 = "Int8"


@dataclass(frozen=True)
class AttentionNodes:
    """The nodes of one attention."""

    qk: str | None
    softmax: str | None
    pv: str | None


@dataclass(frozen=True)
class QuantizedPlan:
    """What a graph asks of the compiler."""

    products: Mapping[str, str]
    """Nodes whose two operands are INT8 or FP8, and that type as the build log names it."""
    attentions: tuple[AttentionNodes, ...]


def compile_check(model: Path, target: Target, progress: Progress) -> Compiled | None:
    """Compile `model` with TensorRT-RTX and say what became of INT8 and FP8; None without it.

    A GPU that TensorRT-RTX does not know (Orin's 8.7, Thor's 11.0) is stood in for by 8.6, or by
    8.9 in FP8. Raises InputError where the graph is not taken.
    """
    try:
        known = capabilities(load("tensorrt_rtx"))
    except UnavailableError:
        return None
    shared = (name for name in target.compute_capabilities if name in known)
    fp8 = target.quantization.number_format == "fp8"
    capability = next(shared, _FP8_FALLBACK if fp8 else _FALLBACK)
    options = Compile(max_batch=target.compile.max_batch, opt_batch=target.compile.opt_batch)
    stand_in = msgspec.structs.replace(
        target, runtime="tensorrt_rtx", compute_capabilities=(capability,), compile=options
    )
    return examine(model, stand_in, compile_model(model, stand_in, progress))


def examine(model: Path, target: Target, compilation: Compilation) -> Compiled | None:
    """What `compilation` says of the INT8 and FP8 in `model`; None where onnx is missing."""
    try:
        plan = quantized_plan(model)
    except ImportError:  # a device that only builds
        return None
    compiled = layers(compilation.log)
    lost = dict(lost_products(compiled, plan))
    kept = [dtype for product, dtype in plan.products.items() if product not in lost]
    return Compiled(
        compiler=f"{runtime_of(target).title} {compilation.version}",
        compute_capability=", ".join(target.compute_capabilities) or "8.0 and later",
        planned=len(plan.products),
        int8=kept.count(_INT8),
        fp8=kept.count(_FP8),
        attention=len(plan.attentions),
        fused=sum(
            any(_holds(layer, attention) for layer in compiled) for attention in plan.attentions
        ),
        lost=lost,
    )


def quantized_plan(model: Path) -> QuantizedPlan:
    """The products of an ONNX file that are INT8 or FP8, and its attentions."""
    import onnx

    from vitedge.graph.match import attentions
    from vitedge.graph.structure import Structure, read_quantizer

    graph = Structure(onnx.load(model, load_external_data=False))
    fusible = (AttentionNodes(a.qk.name, a.softmax.name, a.pv.name) for a in attentions(graph))
    products = {}
    for node, (left, right) in graph.products():
        if left is not None and right is not None:
            is_fp8 = read_quantizer(left).dtype == "float8e4m3fn"
            products[node.name or ""] = _FP8 if is_fp8 else _INT8
    return QuantizedPlan(products, tuple(fusible))


def lost_products(
    compiled: Sequence[CompiledLayer], plan: QuantizedPlan
) -> Iterator[tuple[str, str]]:
    """The planned products that no kernel computes so, and what computes them instead."""
    kernels = [layer for layer in compiled if layer.multiplies]
    for product, dtype in plan.products.items():
        holding = [layer for layer in kernels if product in layer.nodes]
        if not holding:
            yield product, "no matrix kernel of its own: in generated code, or folded"
        for layer in holding:
            if layer.converts or _operands(layer, dtype) < _needed(product, layer, plan):
                yield product, f"{layer}{', made floats first' if layer.converts else ''}"
                break


def _operands(layer: CompiledLayer, dtype: str) -> int:
    """Matrices of `dtype`, 8-bit, that a kernel reads; its scales, biases and masks never are."""
    return (*layer.inputs, *layer.constants).count(dtype)


def _needed(product: str, layer: CompiledLayer, plan: QuantizedPlan) -> int:
    """8-bit matrices that `layer` reads if it computes `product` as planned.

    Both operands; merged Linears share them. Of P·V in a fused attention only V is read, and Q and
    K where Q·Kᵀ is planned, too.
    """
    for attention in plan.attentions:
        if product == attention.pv and _holds(layer, attention):
            return 3 if attention.qk in plan.products else 1
    return 2


def _holds(layer: CompiledLayer, attention: AttentionNodes) -> bool:
    """Whether `layer` is the whole of `attention` in one kernel."""
    parts = {attention.qk, attention.softmax, attention.pv}
    return layer.multiplies and parts <= set(layer.nodes)

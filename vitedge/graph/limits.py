"""What somebody's ONNX graph may ask for: so many rounds of a loop, so much memory.

Told from what the graph states, before anything of it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from vitedge.core.errors import InputError
from vitedge.graph.structure import sizes

OPSETS = (7, 25)
"""What comes in, first and last."""
ROUNDS = 2**16
"""Of a loop, times those of the loops that it is in."""
IMAGE_BYTES = 2**30
"""What a graph takes for one run."""
TENSOR_BYTES, TENSOR_IMAGES = 2**29, 8192
"""What one tensor may take: so many bytes, and so many times the images of a run. The attention of
a ViT with patches of 8 pixels has 1,000 times its image of 1,024²."""
CONSTANT_BYTES, CONSTANT_WEIGHTS = 2**30, 4
"""What is computed of constants alone: so many bytes, and so many times the stored tensors."""
_FIX = "do not run this file; is it the right one?"


def check_opset(model: ModelProto, path: Path) -> None:
    """Raise InputError where `model` is of an opset that is not read."""
    own = [known.version for known in model.opset_import if known.domain in ("", "ai.onnx")]
    version = max(own, default=0)
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise InputError(
            f"{path} has opset {version}; {OPSETS[0]} to {OPSETS[1]} can be read",
            fix=f"export it again with opset {OPSETS[1] - 5}",
        )


def check_loops(model: ModelProto, path: Path) -> None:
    """Raise InputError where a loop of `model` states that it goes on without end, or nearly."""
    for nodes, stored in _bodies(model):
        rounds = _rounds(nodes, {t.name: t for t in stored}, 1)
        if rounds > ROUNDS:
            raise InputError(
                f"{path} has a loop of {'endless' if rounds == math.inf else f'{rounds:,.0f}'} "
                f"rounds, and {ROUNDS:,} are run at most",
                fix=_FIX,
            )


def _bodies(model: ModelProto) -> Iterator[tuple[Sequence[NodeProto], Sequence[TensorProto]]]:
    yield model.graph.node, model.graph.initializer
    for function in model.functions:
        yield function.node, ()


def _rounds(nodes: Sequence[NodeProto], outer: Mapping[str, TensorProto], times: float) -> float:
    """How often what is deepest in `nodes` is computed, as far as constants tell."""
    known = {**outer, **_constants(nodes)}
    most = times
    for node in nodes:
        for graph in _graphs(node):
            inner = {**known, **{t.name: t for t in graph.initializer}}
            own = _trips(node, graph, inner) if node.op_type == "Loop" else 1
            most = max(most, _rounds(graph.node, inner, times * own))
    return most


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _constants(nodes: Sequence[NodeProto]) -> dict[str, TensorProto]:
    """What Constant nodes give, and Identity nodes of them."""
    known: dict[str, TensorProto] = {}
    for node in nodes:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    known[node.output[0]] = attribute.t
                elif attribute.name == "value_int":
                    value = np.array(attribute.i)
                    known[node.output[0]] = numpy_helper.from_array(value)
    return known


def _trips(loop: NodeProto, body: GraphProto, known: Mapping[str, TensorProto]) -> float:
    """How many rounds a Loop states; 1 where its condition is computed."""
    count, condition = (*loop.input, "", "")[:2]
    if not _goes_on(body, known) or (condition and _value(known.get(condition)) != 1):
        return 1
    if not count:
        return math.inf
    trips = _value(known.get(count))
    return 1 if trips is None else max(1, trips)


def _goes_on(body: GraphProto, known: Mapping[str, TensorProto]) -> bool:
    """Whether the condition after a round is the one before it, or a constant that is true."""
    if not body.output:
        return False
    name = body.output[0].name
    makers = {output: node for node in body.node for output in node.output}
    for _ in range(len(makers) + 1):
        maker = makers.get(name)
        if maker is None or maker.op_type != "Identity" or not maker.input:
            break
        name = maker.input[0]
    if len(body.input) > 1 and name == body.input[1].name:
        return True
    return _value({**known, **_constants(body.node)}.get(name)) == 1


def _value(tensor: TensorProto | None) -> float | None:
    """A single number; None of anything else."""
    if tensor is None or math.prod(tensor.dims) != 1:
        return None
    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return None
    return float(numpy_helper.to_array(tensor).reshape(-1)[0])


def check_sizes(model: ir.Model, path: Path) -> None:
    """Raise InputError where a tensor that `model` computes is far larger than its images.

    Open dimensions count once.
    """
    inferred = model.clone()
    if inferred.functions:
        InlinePass()(inferred)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(inferred)
    images = [value for value in inferred.graph.inputs if value.const_value is None]
    negative = [value.name for value in images if min(sizes(value), default=0) < 0]
    if negative:
        raise InputError(f"{path}: '{negative[0]}' has a negative size", fix=_FIX)
    image_bytes = sum(map(_bytes, images))
    if image_bytes > IMAGE_BYTES:
        raise InputError(f"{path} takes images of {image_bytes / 2**30:,.1f} GiB", fix=_FIX)
    _check_constants(inferred.graph, path)
    limit = TENSOR_BYTES + TENSOR_IMAGES * image_bytes
    for node in inferred.graph.all_nodes():
        for value in node.outputs:
            if _bytes(value) > limit:
                raise InputError(
                    f"{path}: {node.op_type} '{node.name or value.name}' makes a tensor of "
                    f"{_bytes(value) / 2**30:,.1f} GiB of images of {image_bytes / 2**20:,.1f} MiB",
                    fix=_FIX,
                )


def _check_constants(graph: ir.Graph, path: Path) -> None:
    """Raise InputError where what `graph` computes of constants alone is far larger than these."""
    constants = set(graph.initializers.values())
    stored_bytes = sum(map(_bytes, constants))
    computed_bytes = 0.0
    for node in graph:
        if constants.issuperset(value for value in node.inputs if value is not None):
            constants.update(node.outputs)
            computed_bytes += sum(map(_bytes, node.outputs))
    if computed_bytes > CONSTANT_BYTES + CONSTANT_WEIGHTS * stored_bytes:
        raise InputError(
            f"{path} computes {computed_bytes / 2**30:,.1f} GiB of constants alone, which are "
            f"{stored_bytes / 2**30:,.1f}",
            fix=_FIX,
        )


def _bytes(value: ir.Value) -> float:
    width = value.dtype.itemsize if value.dtype is not None else 1
    return float(width * math.prod(max(1, size) for size in sizes(value)))

"""What a graph computes from constants alone is computed once: folded weights can be quantized.

Weight standardisation, BatchNorm, relative position biases, resized position embeddings.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.convenience import replace_all_uses_with as replace_uses
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules.common import slice_split_rule

from vitedge.graph import gather, pads, pools
from vitedge.graph.constants import evaluate
from vitedge.graph.external import constant

NO_LIMIT = 2**40
_OF_SEVERAL_OUTPUTS = ("Split", "LayerNormalization", "BatchNormalization", "MaxPool", "TopK")
"""What onnxscript 0.7 never folds: operators that may give several outputs."""
_ROUNDS = 2
"""Of folding and rewriting, each of which gives the other something to do."""


def constants(model: ir.Model) -> None:
    """Fold the constants of `model` and merge BatchNorm into convolutions, in place."""
    _fold(model)
    if _fold_of_several(model.graph) | bool(gather.SIZES.apply_to_model(model)):
        _fold(model)
    _rewrite(model)
    rewriter.rewrite(model, gather.ROWS)
    _store(model.graph)
    _flatten_weights(model.graph)
    pads.name_axes(model.graph)
    pools.make_global(model.graph)


def _fold(model: ir.Model) -> None:
    optimizer.inline(model)
    for _ in range(_ROUNDS):
        folded = optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=NO_LIMIT,
            output_size_limit=NO_LIMIT,
            should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
        )
        if not (_rewrite(model) | folded.modified):
            break
    optimizer.optimize_ir(model, num_iterations=0)  # what follows its rounds: equal nodes, names


def _rewrite(model: ir.Model) -> bool:
    """Apply onnxscript's rules to `model`, in place; whether that changed it."""
    rules = rewriter._DEFAULT_REWRITE_RULES
    if sum(node.op_type == "Slice" for node in model.graph) < 2:
        # the rule for two Slices goes through the whole graph for every node of any kind
        rules = tuple(rule for rule in rules if rule is not slice_split_rule)
    rewritten = rewriter.RewritePass(rules)(model)
    return rewritten.modified | RemoveUnusedNodesPass()(model).modified


def _store(graph: ir.Graph) -> None:
    """Store the constants that rewriting forgot, in place.

    onnxscript 0.7 names the bounds of a Clip after what it clips: of two such, one is lost.
    """
    for node in graph:
        for value in node.inputs:
            if value is None or value.const_value is None or value.producer() is not None:
                continue
            if not (value.is_initializer() or value.is_graph_input()):
                graph.register_initializer(value)


def _flatten_weights(graph: ir.Graph) -> None:
    """Make a matrix of every stack of a single one that a MatMul has on the right, in place."""
    for node in graph:
        if node.op_type != "MatMul":
            continue
        left, right = node.inputs
        stack = ir.convenience.get_const_tensor(right) if right is not None else None
        if left is None or left.shape is None or stack is None or right is None:
            continue
        *lead, rows, columns = stack.shape.numpy() if len(stack.shape) > 2 else (0, 0, 0)
        if set(lead) == {1} and len(left.shape) >= len(stack.shape):  # else the output has its rank
            matrix = stack.numpy().reshape(rows, columns)
            node.replace_input_with(1, constant(graph, f"{right.name}.matrix", matrix))


def _fold_of_several(graph: ir.Graph) -> bool:
    """Fold, in place, the operators of several outputs; whether there is one.

    `nn.MultiheadAttention` splits the weights of a learned query's K and V; Mask2Former normalizes
    its learned queries.
    """
    folded = False
    for node in list(graph):
        known = {value: ir.convenience.get_const_tensor(value) for value in node.inputs if value}
        if node.op_type not in _OF_SEVERAL_OUTPUTS or None in known.values():
            continue
        parts = evaluate(node, {value: tensor.numpy() for value, tensor in known.items() if tensor})
        for value, part in zip(node.outputs, parts or [], strict=True):
            stored = constant(graph, f"{value.name}.folded", part)
            ir.convenience.replace_all_uses_with(value, stored, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        folded = True
    return folded


def by_shape(graph: ir.Graph) -> None:
    """What `constants` would fold if the weights of `graph` had values, in place: they have none.

    What is computed from them and from constants alone becomes one of them, by its shape.
    """
    weights = {value for value in graph.initializers.values() if value.const_value is None}
    constant = {*graph.initializers.values()}
    for node in list(graph):
        inputs = [value for value in node.inputs if value is not None]
        before = inputs[0].producer() if node.op_type == "BatchNormalization" else None
        if before is not None and _takes_norm(before, inputs[0]):
            replace_uses(node.outputs[0], inputs[0], replace_graph_outputs=True)
            graph.remove(node, safe=True)
        elif constant.issuperset(inputs):
            constant.update(node.outputs)
            if weights.isdisjoint(inputs) or not all(map(_is_free, node.outputs)):
                continue
            for value in node.outputs:
                name = f"{value.name}/constant"
                stored = ir.Value(name=name, shape=value.shape, type=value.type)
                graph.initializers[name] = stored
                replace_uses(value, stored)
                weights.add(stored)
                constant.add(stored)
            graph.remove(node, safe=True)


def _takes_norm(node: ir.Node, output: ir.Value) -> bool:
    """Whether a BatchNorm of its `output` is merged into it."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(output.uses()) == 1


def _is_free(value: ir.Value) -> bool:
    """Whether a value may become a constant of its shape."""
    return value.shape is not None and value.shape.is_static() and not value.is_graph_output()

"""A graph as OpenVINO computes it rightly and fuses most of it: edits of what it has read.

In place; none changes a result: integers are moved where floats were, and K is read as it lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


def fit(model: Any, ov: Any) -> None:
    """Put attention into the form that OpenVINO 2026.4 computes as one."""
    operators = ov.opset13
    while any([_quantize_earlier(node, operators) for node in _all(model, "FakeQuantize")]):
        pass  # what was taken over is gone once nothing here holds it
    model.validate_nodes_and_infer_types()
    for node in _all(model, "MatMul"):
        _read_transposed(_scale_later(node, operators), operators)
    keep_transposes(model, ov)


def keep_transposes(model: Any, ov: Any) -> None:
    """Give every Transpose of heads and as many tokens an axis of 1 between them.

    OpenVINO 2026.4 computes attention wrongly (by 100%) where it fuses one such Transpose, before Q
    or after the product with V, without the other: it tells by the shapes whether there is one.
    """
    operators = ov.opset13
    for node in _all(model, "Transpose"):
        source = node.input_value(0)
        dims = source.get_partial_shape()
        if _order(node) != [0, 2, 1, 3] or dims[1].is_dynamic or dims[1] != dims[2]:
            continue
        readers, name = node.output(0).get_target_inputs(), node.get_friendly_name()
        axis = operators.constant([1], np.int64)
        apart = operators.unsqueeze(source, axis)
        turned = operators.transpose(apart, operators.constant([0, 1, 3, 2, 4], np.int64))
        turned.set_friendly_name(name)
        kept = operators.squeeze(turned, axis)
        for reader in readers:
            reader.replace_source_output(kept.output(0))


def _all(model: Any, kind: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _quantize_earlier(quantize: Any, operators: Any) -> bool:
    """Take a quantizer of one scale over what it alone reads and that only moves or scales values.

    It joins the operator that made the values then, and integers are moved, not floats.
    """
    source = quantize.input_value(0).get_node()
    last = _dequantized(quantize)
    if last is None or len(source.output(0).get_target_inputs()) != 1:
        return False
    if any(not _is_scalar(quantize.input_value(i)) for i in range(1, 5)):
        return False
    if source.get_type_name() in MOVES:
        readers = last.output(0).get_target_inputs()
        quantize.input(0).replace_source_output(source.input_value(0))
        source.input(0).replace_source_output(last.output(0))
        for reader in readers:
            reader.replace_source_output(source.output(0))
        return True
    scaled = _scaled(source)
    if scaled is None:
        return False
    value, factor = scaled
    for i in (1, 2):
        limit = quantize.input_value(i).get_node().data / factor
        quantize.input(i).replace_source_output(
            operators.constant(limit.astype(np.float32)).output(0)
        )
    quantize.input(0).replace_source_output(value)
    return True


def _dequantized(quantize: Any) -> Any:
    """What gives back the values that the FakeQuantize `quantize` stores; None if that is open."""
    node = quantize
    for kind in ("Convert", "Convert", "Subtract", "Multiply"):
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1:
            return None
        reader = readers[0].get_node()
        if reader.get_type_name() != kind:
            return None
        if kind in ("Subtract", "Multiply") and readers[0].get_index() != 0:
            return None
        node = reader
    return node


def _scaled(node: Any) -> tuple[Any, np.float32] | None:
    """A value and the positive scalar that `node` multiplies it by."""
    if node.get_type_name() != "Multiply":
        return None
    for i in (0, 1):
        constant = node.input_value(i).get_node()
        if constant.get_type_name() == "Constant" and constant.data.size == 1:
            factor = constant.data.reshape(()).astype(np.float32)
            value = node.input_value(1 - i)
            same = value.get_partial_shape() == node.output(0).get_partial_shape()
            return (value, factor) if factor > 0 and same else None
    return None


def _scale_later(product: Any, operators: Any) -> Any:
    """Multiply what a product gives, not Q, by a scalar: Softmax does it along with its own.

    Returns the product.
    """
    scaling = product.input_value(0).get_node()
    scaled = _scaled(scaling)
    if scaled is None or len(scaling.output(0).get_target_inputs()) != 1:
        return product
    value, factor = scaled
    if value.get_node().get_type_name() in ("Convert", "Subtract"):
        return product  # it makes floats of integers, which the product reads
    readers = product.output(0).get_target_inputs()
    product.input(0).replace_source_output(value)
    scalar = operators.constant(factor.astype(value.get_element_type().to_dtype()))
    later = operators.multiply(product.output(0), scalar)
    later.set_friendly_name(scaling.get_friendly_name())
    for reader in readers:
        reader.replace_source_output(later.output(0))
    return product


def _read_transposed(product: Any, operators: Any) -> None:
    """Let a product read K as it lies, where only a Transpose of the last two axes is between."""
    turned = product.input_value(1).get_node()
    if turned.get_type_name() != "Transpose" or any(
        product.get_attributes()[name] for name in ("transpose_a", "transpose_b")
    ):
        return
    order = _order(turned)
    if not order or len(order) < 3 or sorted(order[-2:]) == order[-2:]:
        return
    order[-2:] = order[:-3:-1]
    source = turned.input_value(0)
    if order != sorted(order):
        source = operators.transpose(source, operators.constant(order, np.int64)).output(0)
    straight = operators.matmul(product.input_value(0), source, False, True)
    straight.set_friendly_name(product.get_friendly_name())
    for reader in list(product.output(0).get_target_inputs()):
        reader.replace_source_output(straight.output(0))


def _order(transpose: Any) -> list[int]:
    """Its permutation; empty where that is computed."""
    order = transpose.input_value(1).get_node()
    return list(map(int, order.data)) if order.get_type_name() == "Constant" else []


def _is_scalar(value: Any) -> bool:
    node = value.get_node()
    return bool(node.get_type_name() == "Constant" and node.data.size == 1)

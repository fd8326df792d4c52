"""Pools whose window covers the map, as EfficientNet's: OpenVINO 2026.4 converts none so large."""

from __future__ import annotations

import onnx_ir as ir

_GLOBAL = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def make_global(graph: ir.Graph) -> None:
    """Make every pool of the whole map a global one, in place."""
    for node in graph:
        source = node.inputs[0] if node.op_type in _GLOBAL else None
        if source is None or source.shape is None or len(node.outputs) > 1:
            continue
        sizes, window = source.shape[2:], _numbers(node, "kernel_shape")
        if any(_numbers(node, "pads")) or set(_numbers(node, "dilations")) - {1}:
            continue
        filled = node.attributes.get("auto_pad")
        if filled is not None and filled.as_string() not in ("NOTSET", "VALID"):
            continue  # its output is as large as the map
        if all(
            isinstance(size, int) and size <= side for size, side in zip(sizes, window, strict=True)
        ):
            node.op_type = _GLOBAL[node.op_type]
            node.attributes.clear()


def _numbers(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return tuple(attribute.as_ints()) if attribute is not None else ()

"""How an operator of ONNX Runtime's own takes the place of others in a graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

DOMAIN = "com.microsoft"


def replace(
    graph: ir.Graph,
    at: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    output: ir.Value,
    attributes: dict[str, int | float],
) -> None:
    """Put an operator of `DOMAIN` where `output` was made; what made it is dead then."""
    node = ir.node(kind, inputs, attributes, domain=DOMAIN, name=f"{at.name}/{kind}")
    maker = output.producer()
    assert maker is not None
    name = output.name
    node.outputs[0].shape, node.outputs[0].type = output.shape, output.type
    graph.insert_before(maker, node)
    ir.convenience.replace_all_uses_with(output, node.outputs[0], replace_graph_outputs=True)
    output.name, node.outputs[0].name = f"{name}/before", name

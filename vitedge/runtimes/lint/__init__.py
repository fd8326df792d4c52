"""What a target does not take well in an ONNX graph: one small rule for each known trap.

Each runtime has the rules that hold for it, worst first: what one rejects, another is fast with.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx import ModelProto

from vitedge.core.manifest import Finding
from vitedge.core.runtime import runtime_of
from vitedge.core.spec import Target
from vitedge.graph.structure import Structure


def lint(model: ModelProto | ir.Model, target: Target) -> tuple[Finding, ...]:
    """Every trap of `target` in `model`, whose weights are loaded, in the order of its rules."""
    graph = Structure(model, infer=True)
    return tuple(
        Finding(
            rule=rule.id, node=node or "", consequence=rule.consequence, what=what, fix=rule.fix
        )
        for rule in runtime_of(target).rules()
        for node, what in rule.find(graph, target)
    )

"""What a target does not take well in an ONNX graph: one small rule for each known trap.

Each runtime has the rules that hold for it, worst first: what one rejects, another is fast with.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from vitedge.core.manifest import Finding
from vitedge.core.spec import Target
from vitedge.graph.structure import Structure
from vitedge.runtimes.lint import cpu
from vitedge.runtimes.lint.rule import Rule
from vitedge.runtimes.tensorrt import lint as tensorrt

RULES: Mapping[str, tuple[Rule, ...]] = {
    "onnxruntime": cpu.RULES,
    "openvino": cpu.RULES,
    "tensorrt": tensorrt.RULES,
    "tensorrt_rtx": tensorrt.RULES,
}
"""By runtime."""


def lint(model: ModelProto, target: Target) -> tuple[Finding, ...]:
    """Every trap of `target` in `model`, whose weights are loaded, in the order of RULES."""
    graph = Structure(model)
    return tuple(
        Finding(rule=rule.id, node=node, consequence=rule.consequence, what=what, fix=rule.fix)
        for rule in RULES[target.runtime]
        for node, what in rule.find(graph, target)
    )

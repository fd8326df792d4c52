"""How much of an artifact a runtime runs in INT8: what was quantized on paper may run in float."""

from __future__ import annotations

from pathlib import Path

from vitedge.core.runtime import runtime_of


def int8_ops(model, like):
    """Operators with multiply-accumulates that the runtime of the target `like` runs in INT8, and
    all of them, in the graph that it executes after its own fusions.
    """
    return tuple(runtime_of(like).executed_file(Path(model), like))

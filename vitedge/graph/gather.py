"""Gathers by a matrix of indices, as of `nn.Unfold`, become Gathers by a row, and a Reshape.

OpenVINO's low-precision pass throws where it moves a scale through a Gather by a matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleClassBase, RewriteRuleSet


class _ByMatrix(RewriteRuleClassBase):
    """Gather(x, (r, c)) to Reshape(Gather(x, (r·c,))), where the shape of `x` is known."""

    def pattern(self, op: Any, x: ir.Value, indices: ir.Value) -> Any:
        return op.Gather(x, indices, _allow_other_attributes=True, _outputs=["gathered"])

    def check(  # type: ignore[override]
        self, context: Any, x: ir.Value, indices: ir.Value, **_: Any
    ) -> bool:
        constant = ir.convenience.get_const_tensor(indices)
        return constant is not None and len(constant.shape) > 1 and bool(x.shape)

    def rewrite(
        self, op: Any, x: ir.Value, indices: ir.Value, gathered: ir.Value
    ) -> ir.Value | None:
        node, constant = gathered.producer(), ir.convenience.get_const_tensor(indices)
        assert node is not None and constant is not None and x.shape is not None
        axis = node.attributes.get_int("axis", 0) % len(x.shape)
        after = [size if isinstance(size, int) else -1 for size in x.shape[axis + 1 :]]
        if after.count(-1) > 1:
            return None
        flat = op.initializer(ir.tensor(constant.numpy().reshape(-1)), f"{gathered.name}.indices")
        # 0 takes the size of the tensor's own axis at that place, which is before all that changes
        shape = ir.tensor([*([0] * axis), *map(int, constant.shape.numpy()), *after])
        return op.Reshape(  # type: ignore[no-any-return]
            op.Gather(x, flat, axis=axis), op.initializer(shape, f"{gathered.name}.shape")
        )


class _KnownSize(RewriteRuleClassBase):
    """Gather(Shape(x), indices) to a constant, where these sizes are known: with a dynamic batch,
    the exporter computes the indices of `nn.Unfold` of them."""

    def pattern(self, op: Any, x: ir.Value, indices: ir.Value) -> Any:
        shape = op.Shape(x, start=0, _allow_other_attributes=False)  # of all axes
        return op.Gather(shape, indices, axis=0)

    def check(  # type: ignore[override]
        self, context: Any, x: ir.Value, indices: ir.Value, **_: Any
    ) -> bool:
        constant = ir.convenience.get_const_tensor(indices)
        if constant is None or x.shape is None:
            return False
        dims = list(x.shape)
        picked = [dims[i] for i in constant.numpy().reshape(-1) if -len(dims) <= i < len(dims)]
        return len(picked) == constant.size and all(isinstance(size, int) for size in picked)

    def rewrite(self, op: Any, x: ir.Value, indices: ir.Value) -> ir.Value:
        constant = ir.convenience.get_const_tensor(indices)
        assert constant is not None and x.shape is not None
        sizes = [size if isinstance(size, int) else 0 for size in x.shape]
        return op.Constant(  # type: ignore[no-any-return]
            value=ir.tensor(np.array(sizes, np.int64)[constant.numpy()])
        )


SIZES = RewriteRuleSet([_KnownSize.rule(remove_nodes=False)])  # type: ignore[no-untyped-call]
ROWS = RewriteRuleSet([_ByMatrix.rule()])  # type: ignore[no-untyped-call]

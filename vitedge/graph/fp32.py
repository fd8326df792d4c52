"""The FP32 ONNX file that every lowering starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitedge.core.runtime import TensorSpec
from vitedge.graph.finite import check_finite
from vitedge.graph.run import Runner


@dataclass(frozen=True)
class Fp32Graph:
    """The FP32 ONNX file, and how close it is to its source."""

    path: Path
    input: TensorSpec
    output: TensorSpec
    max_abs_error: float
    max_rel_error: float

    def outputs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The output (n, …) for `images` (n, H, W, 3), on ONNX Runtime.

        Raises InputError, naming the layer, where it is NaN or infinite.
        """
        fixed = self.input.shape[0] or len(images)
        padded = np.concatenate([images, np.repeat(images[-1:], -len(images) % fixed, axis=0)])
        run = Runner(self.path)
        runs = []
        for start in range(0, len(padded), fixed):
            part = padded[start : start + fixed]
            runs.append(run(part)[0])
            check_finite(runs[-1], self.path, part)
        return np.concatenate(runs)[: len(images)]

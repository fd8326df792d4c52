"""An FP32 export and a few images into a float16 ONNX file, and the manifest's record of how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitedge import manifest
from vitedge.imageset import ImageSet
from vitedge.progress import Steps
from vitedge.spec import Calibration, Target

if TYPE_CHECKING:
    from vitedge.graph.export import Exported

GOLDEN = "golden"


@dataclass(frozen=True)
class Fp16:
    """The float16 ONNX file, and the manifest's record of what it keeps in float32."""

    path: Path
    record: manifest.Half


@dataclass(frozen=True)
class Guard:
    """Where the guard against overflow looks: calibration images, or golden ones without any."""

    calibration: ImageSet | None
    golden: NDArray[np.uint8]
    """(n, H, W, 3)"""
    recipe: Calibration
    """How many calibration images, and their draw's seed."""
    steps: Steps

    def write(self, exported: Exported, target: Target, folder: Path) -> Fp16:
        """Write `folder/model.onnx` in float16, what would overflow kept in float32."""
        from vitedge.graph.half import halve

        size = 1 if target.batch == "dynamic" else target.batch
        seen = 0

        def batches() -> Iterator[NDArray[np.uint8]]:
            nonlocal seen
            stream, drawn = self._images(), 0
            while some := list(islice(stream, size)):
                drawn += len(some)
                seen = max(seen, drawn)
                yield np.concatenate(some + some[-1:] * (size - len(some)))

        folder.mkdir()
        total = self.recipe.num_samples if self.calibration else len(self.golden)
        half = halve(exported.path, folder, batches, total, self.steps)
        record = manifest.Half(
            kept=tuple(manifest.Kept(**vars(kept)) for kept in half.kept),
            layer_norm=half.layer_norm,
            largest=half.largest,
            largest_node=half.largest_node,
            limit=half.limit,
            sqnr_db=half.sqnr_db,
            source=self.calibration.name if self.calibration else GOLDEN,
            images=seen,
        )
        return Fp16(half.path, record)

    def _images(self) -> Iterator[NDArray[np.uint8]]:
        """One image (1, H, W, 3) at a time."""
        if self.calibration is None:
            yield from np.split(self.golden, len(self.golden))
        else:
            for batch in self.calibration.sample(self.recipe.num_samples, self.recipe.seed):
                yield batch.images


def notes(half: manifest.Half) -> list[str]:
    """What a user should know of what the guard did."""
    found = []
    if half.kept:
        found.append(
            f"{len(half.kept)} operators stay in float32 (|x| reaches {half.largest:.4g} in "
            f"'{half.largest_node}'): see its manifest"
        )
    if half.source in (GOLDEN, "random"):
        found.append(
            f"overflow was looked for on {half.images} images that may not look like real ones: "
            "pass --calib-data"
        )
    return found

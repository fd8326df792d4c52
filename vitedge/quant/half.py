"""An FP32 export and a few images into a float16 ONNX file, and the manifest's record of how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.data.calibration import CalibrationImages, batched

if TYPE_CHECKING:
    from vitedge.graph.fp32 import Fp32Graph
    from vitedge.graph.half import Halved

GOLDEN = "golden"


@dataclass(frozen=True)
class Fp16:
    """The float16 ONNX file, and the manifest's record of what it keeps in float32."""

    deployed: Path
    half: manifest.Half


@dataclass(frozen=True)
class Guard:
    """Where the guard against overflow looks: calibration images, or golden ones without any."""

    calibration: CalibrationImages | None
    golden: NDArray[np.uint8]
    """(n, H, W, 3)"""
    steps: Steps

    def write(self, exported: Fp32Graph, target: Target, folder: Path) -> Fp16:
        """Write `folder/model.onnx` in float16, what would overflow kept in float32."""
        from vitedge.graph.half import halve

        size = 1 if target.batch == "dynamic" else target.batch
        source, total, images = GOLDEN, len(self.golden), np.split(self.golden, len(self.golden))
        if self.calibration:
            source, total = self.calibration.images.name, self.calibration.recipe.num_samples
        folder.mkdir()
        half = halve(
            exported.path,
            exported.path,
            folder,
            lambda: batched(self.calibration or images, size),
            total,
            self.steps,
        )
        images_seen = self.calibration.record().images if self.calibration else total
        return Fp16(half.path, describe(half, source, images_seen))


def describe(half: Halved, source: str, images: int) -> manifest.Half:
    """The manifest's record of a float16 graph whose overflow was looked for on `images`."""
    return manifest.Half(
        kept=tuple(manifest.Kept(**vars(kept)) for kept in half.kept),
        layer_norm=half.layer_norm,
        largest=half.largest,
        largest_node=half.largest_node,
        limit=half.limit,
        sqnr_db=half.sqnr_db,
        source=source,
        images=images,
    )


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

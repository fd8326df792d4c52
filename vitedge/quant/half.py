"""An FP32 export and a few images into a float16 ONNX file, and the manifest's record of how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitedge.core import manifest
from vitedge.core.bundle import Golden
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.data.calibration import CalibrationImages, batched

if TYPE_CHECKING:
    from vitedge.graph.half import Halved
    from vitedge.graph.run import Fp32Graph

GOLDEN = "golden"


@dataclass(frozen=True)
class Fp16:
    """The float16 ONNX file, and the manifest's record of what it keeps in float32."""

    deployed: Path
    half: manifest.Half


def to_float16(
    exported: Fp32Graph,
    target: Target,
    calibration: CalibrationImages | None,
    golden: Golden,
    folder: Path,
    steps: Steps,
) -> Fp16:
    """Write `folder/model.onnx` in float16, what would overflow kept in float32.

    Overflow is looked for on calibration images, or on golden ones without any. Raises InputError
    as `halve` does.
    """
    from vitedge.graph.half import halve

    size = 1 if target.batch == "dynamic" else target.batch
    source, total, images = GOLDEN, len(golden.images), np.split(golden.images, len(golden.images))
    if calibration:
        source, total = calibration.images.name, calibration.recipe.num_samples
    folder.mkdir()
    half = halve(
        exported.path,
        exported.path,
        folder,
        lambda: batched(calibration or images, size),
        total,
        steps,
    )
    images_seen = calibration.record().images if calibration else total
    return Fp16(half.path, describe(half, source, images_seen))


def describe(half: Halved, source: str, images: int) -> manifest.Half:
    """The manifest's record of a float16 graph whose overflow was looked for on `images`."""
    return manifest.Half(
        kept=half.kept,
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
    lines = []
    if half.kept:
        lines.append(
            f"{len(half.kept)} operators stay in float32 (|x| reaches {half.largest:.4g} in "
            f"'{half.largest_node}'): see its manifest"
        )
    if half.source in (GOLDEN, "random"):
        lines.append(
            f"overflow was looked for on {half.images} images that may not look like real ones: "
            "pass --calib-data"
        )
    return lines

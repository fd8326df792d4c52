"""An FP32 export and a few images into a float16 ONNX file, and the manifest's record of how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.bundle import Golden
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.data.calibration import CalibrationImages, batched

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph

GOLDEN = "golden"
_CAUSES: dict[manifest.Cause, str] = {
    "no narrow form": "for want of a narrower form",
    "underflow": "against underflow",
    "overflow": "against overflow",
    "drift": "against drift",
}


@dataclass(frozen=True)
class Fp16:
    """The float16 ONNX file, and the manifest's record of what it keeps in float32."""

    deployed: Path
    half: manifest.Half

    @property
    def simulated(self) -> Path:
        """What it computes, as a file for any CPU."""
        return self.deployed


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
    size = target.batch_size
    source, total, images = GOLDEN, len(golden.images), np.split(golden.images, len(golden.images))
    if calibration:
        source, total = calibration.images.name, calibration.recipe.num_samples
    path = exported.path
    batches = partial(batched, calibration or images, size)
    fp16 = lower(path, path, folder, batches, total, source, steps)
    if calibration:
        half = msgspec.structs.replace(fp16.half, images=calibration.record().images)
        return replace(fp16, half=half)
    return fp16


def lower(
    path: Path,
    fp32: Path,
    folder: Path,
    batches: Callable[[], Iterator[NDArray[np.uint8]]],
    total: int,
    source: str,
    steps: Steps,
) -> Fp16:
    """Write the ONNX file `path`, made of `fp32`, as `folder/model.onnx` in float16.

    Overflow is looked for on `total` images of the set `source`, in `batches`.
    """
    from vitedge.graph.half import halve

    folder.mkdir()
    half = halve(path, fp32, folder, batches, total, source, steps)
    return Fp16(folder / "model.onnx", half)


def in_float32(operators: Sequence[manifest.Kept]) -> Iterator[str]:
    """How many operators stay in float32 and why, if any do."""
    causes: dict[manifest.Cause, list[manifest.Kept]] = {}
    for operator in operators:
        causes.setdefault(operator.cause, []).append(operator)
    if causes:
        parts = (
            f"{len(kept)} {_CAUSES[cause]} ('{kept[0].node}': {kept[0].why})"
            for cause, kept in causes.items()
        )
        yield f"{len(operators)} operators stay in float32: {', '.join(parts)}"


def notes(half: manifest.Half) -> list[str]:
    """What a user should know of what the guard did."""
    lines = list(in_float32(half.kept))
    if half.source in (GOLDEN, "random"):
        lines.append(
            f"overflow was looked for on {half.images} images that may not look like real ones: "
            "pass `calib_data`"
        )
    return lines

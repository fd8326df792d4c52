"""An FP32 export and calibration images into INT8 ONNX files, and the manifest's record of how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
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
    from vitedge.quant.ptq import Calibrated


@dataclass(frozen=True)
class Int8:
    """The quantized ONNX file, and the manifest's record of how it came to be."""

    path: Path
    record: manifest.Quantized


class Quantizer:
    """Calibrates one export for one target once, and writes it with any layers kept in float."""

    def __init__(
        self,
        exported: Exported,
        target: Target,
        images: ImageSet,
        recipe: Calibration,
        steps: Steps,
    ) -> None:
        self._exported, self._target = exported, target
        self._images, self._recipe, self._steps = images, recipe, steps
        self._digests: list[str] = []

    def write(self, folder: Path, kept: Mapping[str, str]) -> Int8:
        """Write `folder/model.onnx`; the nodes in `kept` stay in float for the reason given."""
        from vitedge.graph import files
        from vitedge.quant.ptq import quantize

        model, decisions = quantize(self.calibrated, self._steps, kept)
        folder.mkdir()
        path = folder / "model.onnx"
        files.write(model, path)
        layers = tuple(manifest.Layer(**vars(decision)) for decision in decisions)
        equalized = self.calibrated.equalized
        rescaled = None
        if equalized:
            rescaled = manifest.Equalization(
                pairs=tuple(manifest.Pair(**vars(pair)) for pair in equalized.pairs),
                max_rel_error=equalized.max_rel_error,
            )
        calibration = manifest.CalibrationSet(
            recipe=self._recipe,
            source=self._images.name,
            images=len(self._digests),
            digest=hashlib.sha256("".join(self._digests).encode()).hexdigest(),
            image_digests=tuple(self._digests),
            skipped=dict(self._images.skipped),
        )
        record = manifest.Quantized(layers=layers, calibration=calibration, equalization=rescaled)
        return Int8(path, record)

    @cached_property
    def calibrated(self) -> Calibrated:
        """The ranges measured on the calibration images."""
        from vitedge.quant.ptq import calibrate

        return calibrate(
            self._exported.path,
            self._batches,
            self._recipe,
            self._target.quantization,
            self._steps,
        )

    def _batches(self) -> Iterator[NDArray[np.uint8]]:
        """The recipe's calibration images, (B, H, W, 3) as many as one run takes."""
        self._digests.clear()
        size = 1 if self._target.batch == "dynamic" else self._target.batch
        waiting: list[NDArray[np.uint8]] = []
        for image in self._images.sample(self._recipe.num_samples, self._recipe.seed):
            self._digests.extend(image.digests)
            waiting.append(image.images)
            if len(waiting) == size:
                yield np.concatenate(waiting)
                waiting.clear()
        if waiting:
            waiting += waiting[-1:] * (size - len(waiting))
            yield np.concatenate(waiting)

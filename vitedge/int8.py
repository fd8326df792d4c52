"""An FP32 export and calibration images into INT8 ONNX files, and the manifest's record of how."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
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

RANKING_IMAGES = 8
RANKING_RUNS = 300
"""At most, to rank layers: what a calibration takes. A model of more layers gets fewer images."""


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
        self._skipped: dict[str, int] = {}

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
            skipped=self._skipped,
        )
        record = manifest.Quantized(layers=layers, calibration=calibration, equalization=rescaled)
        return Int8(path, record)

    def harm(self, int8: Int8) -> dict[str, float]:
        """Noise over signal at the output with each layer of `int8` alone quantized.

        `int8` has every layer quantized; a few calibration images tell.
        """
        from vitedge.quant.sensitivity import harm

        layers = [layer.node for layer in int8.record.layers if layer.quantized]
        count = min(RANKING_IMAGES, max(1, RANKING_RUNS // (len(layers) + 1)))
        drawn = [image.images for image in self._images.sample(count, self._recipe.seed)]
        batches = list(self._runs(drawn))
        return harm(self.calibrated.path, int8.path, layers, batches, self._steps)

    @cached_property
    def calibrated(self) -> Calibrated:
        """The ranges measured on the calibration images."""
        from vitedge.quant.ptq import calibrate

        calibrated = calibrate(
            self._exported.path,
            self._batches,
            self._recipe,
            self._target.quantization,
            self._steps,
        )
        self._skipped = dict(self._images.skipped)
        return calibrated

    def _batches(self) -> Iterator[NDArray[np.uint8]]:
        """The recipe's calibration images, (B, H, W, 3) as many as one run takes."""
        self._digests.clear()

        def images() -> Iterator[NDArray[np.uint8]]:
            for image in self._images.sample(self._recipe.num_samples, self._recipe.seed):
                self._digests.extend(image.digests)
                yield image.images

        return self._runs(images())

    def _runs(self, images: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Single images (1, H, W, 3) as many as one run takes; the last is repeated."""
        size = 1 if self._target.batch == "dynamic" else self._target.batch
        waiting: list[NDArray[np.uint8]] = []
        for image in images:
            waiting.append(image)
            if len(waiting) == size:
                yield np.concatenate(waiting)
                waiting.clear()
        if waiting:
            waiting += waiting[-1:] * (size - len(waiting))
            yield np.concatenate(waiting)

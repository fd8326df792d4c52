"""An FP32 export and calibration images into INT8 ONNX files, and the manifest's record of how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vitedge import manifest
from vitedge.progress import Steps
from vitedge.selection import CalibrationImages, batched
from vitedge.spec import Target

if TYPE_CHECKING:
    from vitedge.graph.export import Exported
    from vitedge.quant.calibrate import Tried
    from vitedge.quant.settle import Calibrated


@dataclass(frozen=True)
class Int8:
    """The quantized ONNX file, and the manifest's record of how it came to be."""

    path: Path
    record: manifest.Quantized


class Quantizer:
    """Calibrates one export for one target once, and writes it with any layers kept in float."""

    def __init__(
        self, exported: Exported, target: Target, images: CalibrationImages, steps: Steps
    ) -> None:
        self._exported, self._target = exported, target
        self._images, self._steps = images, steps

    def write(self, folder: Path, kept: Mapping[str, str]) -> Int8:
        """Write `folder/model.onnx`; the nodes in `kept` stay in float for the reason given."""
        from vitedge.graph import files
        from vitedge.graph.lint import lint
        from vitedge.quant.layers import examine
        from vitedge.quant.ptq import quantize

        used, tried = self._settled
        model, decisions = quantize(used, self._steps, kept)
        folder.mkdir()
        path = folder / "model.onnx"
        findings = lint(model, self._target)
        files.write(model, path)
        del model
        self._steps.say("measuring every layer")
        names = [decision.node for decision in decisions]
        figures = examine(used.path, path, names, used.images[0])
        layers = tuple(manifest.Layer(**vars(d), figures=figures[d.node]) for d in decisions)
        rescaled = manifest.Equalization(
            pairs=tuple(manifest.Pair(**vars(pair)) for pair in used.pairs),
            max_rel_error=used.max_rel_error,
        )
        settled = manifest.Settled(
            equalize=used.settings.equalize,
            activations=used.settings.activations,
            tried=tuple(
                manifest.Tried(
                    equalize=one.settings.equalize,
                    activations=one.settings.activations,
                    sqnr_db=one.sqnr_db,
                )
                for one in tried
            ),
        )
        record = manifest.Quantized(
            layers=layers,
            calibration=self._images.record(),
            settled=settled,
            equalization=rescaled,
            lint=findings,
        )
        return Int8(path, record)

    @property
    def calibrated(self) -> Calibrated:
        """What was measured on the calibration images."""
        return self._settled[0]

    @cached_property
    def _settled(self) -> tuple[Calibrated, list[Tried]]:
        from vitedge.quant.calibrate import calibrate

        size = 1 if self._target.batch == "dynamic" else self._target.batch
        return calibrate(
            self._exported.path,
            batched(self._images, size),
            self._images.recipe,
            self._target.quantization,
            self._steps,
        )

"""What a pass over the calibration images has shown, kept for recipes that read it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from vitedge.core.step_cache import Slot
from vitedge.data.calibration import CalibrationImages
from vitedge.quant.observe import Pass
from vitedge.quant.statistics import ChannelStatistics

_FILE = "pass.npz"


class _Value(msgspec.Struct, frozen=True):
    """What the arrays belong to."""

    taps: tuple[str, ...]
    batches: int
    outputs: int
    """Of each batch."""
    digests: tuple[str, ...]
    """Of the images of the pass."""
    skipped: dict[str, int]


@dataclass(frozen=True)
class KeptPass:
    """Makes a pass over `images` or has it from its `slot`, by way of the new `folder`."""

    slot: Slot
    images: CalibrationImages
    folder: Path

    def __call__(self, make: Callable[[], Pass]) -> Pass:
        made: list[Pass] = []

        def write() -> _Value:
            made.append(make())
            return self._write(made[0])

        value = self.slot.step(self.folder, _Value, write)
        if made:
            return made[0]
        self.images.restore(value.digests, value.skipped)
        return self._read(value)

    def _write(self, shown: Pass) -> _Value:
        arrays = {
            f"{place}/{name}": array
            for place, statistics in enumerate(shown.statistics.values())
            for name, array in statistics.arrays().items()
        }
        for batch, (images, outputs) in enumerate(zip(shown.images, shown.outputs, strict=True)):
            arrays[f"images/{batch}"] = images
            arrays |= {f"outputs/{batch}/{i}": output for i, output in enumerate(outputs)}
        self.folder.mkdir()
        np.savez(self.folder / _FILE, **arrays)  # type: ignore[arg-type]
        record = self.images.record()
        return _Value(
            tuple(shown.statistics),
            len(shown.images),
            len(shown.outputs[0]),
            record.image_digests,
            record.skipped,
        )

    def _read(self, value: _Value) -> Pass:
        with np.load(self.folder / _FILE, allow_pickle=False) as stored:
            names = ("places", "counts", "base", "largest", "lowest", "highest")
            statistics = {
                tap: ChannelStatistics.of({name: stored[f"{place}/{name}"] for name in names})
                for place, tap in enumerate(value.taps)
            }
            batches, outputs = range(value.batches), range(value.outputs)
            images = [stored[f"images/{batch}"] for batch in batches]
            given = [[stored[f"outputs/{batch}/{i}"] for i in outputs] for batch in batches]
        return Pass(statistics, images, given)

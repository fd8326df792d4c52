"""Floats in BF16: what that costs, and whether it may be.

A CPU's runtime has an option for it, and the file stays FP32's or INT8's: all floats or none. A
GPU's takes its types from the graph, where one operator can stay in FP32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from vitedge.core import manifest
from vitedge.core.bundle import Golden
from vitedge.core.errors import InputError
from vitedge.core.progress import Steps
from vitedge.core.spec import Target
from vitedge.data.calibration import CalibrationImages, batched
from vitedge.quant.half import GOLDEN, in_float32

if TYPE_CHECKING:
    from vitedge.graph.run import Fp32Graph

SQNR_LIMIT_DB = 30.0
"""Of every output of BF16 alone: 38 to 40 dB is usual of ViTs."""
INT8_LOSS_DB = 1.0
"""Of an INT8 output's SQNR that a BF16 rest may take, where it leaves less than SQNR_LIMIT_DB: 0.2
to 0.8 dB is usual. What leaves that much is as good as BF16 alone must be, and so is its speed."""
CHECKED_RUNS = 8
MOST_ROUNDS = 8
"""Of finding what drifts and keeping it in FP32, before BF16 is given up."""


@dataclass(frozen=True)
class Bf16:
    """An ONNX file that is computed in BF16, and what that costs."""

    deployed: Path
    simulated: Path
    """What it computes, as a file for any CPU: float results rounded to bfloat16."""
    bf16: manifest.Bf16


@dataclass(frozen=True)
class _Images:
    """What closeness to FP32 is measured on."""

    batches: Sequence[NDArray[np.uint8]]
    source: str
    orders: Sequence[str]
    """Of the outputs, as `Manifest.orders`."""

    def record(self, path: Path, fp32: Path, simulated: Path) -> manifest.Bf16:
        """What the outputs of `path`, made of `fp32`, keep as rounded in `simulated`."""
        from vitedge.graph.bfloat16 import closeness

        level = closeness(fp32, path, simulated, iter(self.batches), self.orders)
        return manifest.Bf16(
            computed=True,
            output=level.output,
            sqnr_db=level.rounded_db,
            fp32_rest_db=None if path == fp32 else level.before_db,
            source=self.source,
            images=sum(map(len, self.batches)),
        )


def to_bfloat16(
    exported: Fp32Graph,
    target: Target,
    calibration: CalibrationImages | None,
    golden: Golden,
    folder: Path,
    steps: Steps,
) -> Bf16:
    """Have `exported` computed in BF16: by the target's option, or as `folder/model.onnx`.

    How close that is, is measured on calibration images, or on golden ones without any. Raises
    InputError where an output keeps less than SQNR_LIMIT_DB of FP32's.
    """
    steps.say(f"rounding floats to BF16 for {target.name}")
    source = calibration.images.name if calibration else GOLDEN
    images = calibration or np.split(golden.images, len(golden.images))
    batches = list(islice(batched(images, target.batch_size), CHECKED_RUNS))
    outputs = (exported.output, *exported.further)
    seen = _Images(batches, source, [exported.orders.get(spec.name, "") for spec in outputs])
    if target.bf16_options:
        return _by_option(exported.path, seen)
    folder.mkdir()
    return _in_graph(exported.path, folder, seen)


def _by_option(path: Path, seen: _Images) -> Bf16:
    """The FP32 file itself."""
    from vitedge.graph.bfloat16 import first_drift, write_rounded

    simulated = write_rounded(path)
    record = seen.record(path, path, simulated)
    if not record.sqnr_db >= SQNR_LIMIT_DB:
        where = first_drift(path, simulated, seen.batches[0], SQNR_LIMIT_DB)
        raise _too_far(record, where, "and the runtime's option is for all floats or none")
    return Bf16(path, simulated, record)


def _in_graph(path: Path, folder: Path, seen: _Images) -> Bf16:
    """A file with its floats in bfloat16, but those operators from which on it would drift."""
    from vitedge.graph.bfloat16 import first_drift, narrow, with_sources

    drifting: set[str] = set()
    for _ in range(MOST_ROUNDS):
        graph = narrow(path, folder, seen.batches[0], drifting)
        record = seen.record(path, path, graph.simulated)
        if record.sqnr_db >= SQNR_LIMIT_DB:
            kept = tuple(graph.kept.values())
            return Bf16(graph.path, graph.simulated, msgspec.structs.replace(record, kept=kept))
        where = first_drift(path, graph.simulated, seen.batches[0], SQNR_LIMIT_DB)
        drifting |= with_sources(path, where)
    raise _too_far(record, where, f"with {len(graph.kept)} operators in FP32, too")


def _too_far(record: manifest.Bf16, where: str, further: str) -> InputError:
    return InputError(
        f"in BF16 this model drifts from FP32 from '{where}' on: its output '{record.output}' "
        f"keeps {record.sqnr_db:.1f} dB of {SQNR_LIMIT_DB:g}, {further}",
        fix="export it with `precision='fp32'`",
    )


def int8_rest(
    path: Path,
    fp32: Path,
    batches: Sequence[NDArray[np.uint8]],
    source: str,
    orders: Sequence[str],
) -> tuple[Path, manifest.Bf16]:
    """Whether the floats of the INT8 file `path`, made of `fp32`, may be computed in BF16.

    And the file to simulate it by: that with float results rounded, where they are.
    """
    from vitedge.graph.bfloat16 import write_rounded

    simulated = write_rounded(path)
    record = _Images(batches[:CHECKED_RUNS], source, orders).record(path, fp32, simulated)
    assert record.fp32_rest_db is not None
    if record.sqnr_db >= min(record.fp32_rest_db - INT8_LOSS_DB, SQNR_LIMIT_DB):
        return simulated, record
    why = (
        f"in BF16 its output '{record.output}' would keep {record.sqnr_db:.1f} dB "
        f"of {record.fp32_rest_db:.1f}"
    )
    return path, msgspec.structs.replace(record, computed=False, why=why)


def notes(bf16: manifest.Bf16) -> Iterator[str]:
    """What a user should know of what stays in FP32."""
    if bf16.why:
        yield f"its floats are computed in FP32: {bf16.why}"
    yield from in_float32(bf16.kept)
    if bf16.source in (GOLDEN, "random"):
        yield (
            f"BF16 was judged on {bf16.images} images that may not look like real ones: "
            "pass `calib_data`"
        )

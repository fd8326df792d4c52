"""SQNR of INT8 on ordinary models: ours beside every peer, same images, same sessions.

`digits` (trained) and the lineage's models (random weights, real photographs). NNCF and ONNX
Runtime run here; the peers of peers.txt in the environment that --peers-python names.
"""

from __future__ import annotations

import gc
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.int8_ops import int8_ops
from tests.support import lineage
from vitedge.core.bundle import Bundle
from vitedge.data.open import open_images
from vitedge.models.sources import ModelRequest


@dataclass(frozen=True)
class Subject:
    """A model to quantize, with its images as the artifact takes them, uint8 (n, H, W, 3)."""

    name: str
    fp32: dict[str, Bundle]
    """By runtime; so `ours`."""
    ours: dict[str, Bundle]
    calibration: list[NDArray[np.uint8]]
    """One image a batch."""
    held_out: NDArray[np.uint8]


@dataclass(frozen=True)
class Cell:
    """What came of one quantizer on one model and runtime."""

    sqnr_db: float
    int8: int
    ops: int
    """Operators with multiply-accumulates, `int8` of them in INT8."""

    def __str__(self):
        return f"{self.sqnr_db:.1f} ({self.int8}/{self.ops})"


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--rows", nargs="+", help="words of the names of the models to run")
    parser.add_argument("--full", action="store_true", help="the lineage at full depth")
    parser.add_argument("--seed", type=int, default=0, help="of the lineage's random weights")
    parser.add_argument("--runtime", nargs="+", default=peers.RUNTIMES)
    peers.add_peers(parser)
    options = parser.parse_args()
    library = peers.declare_torchvision_ops()
    peers.print_absent(options)
    columns = {runtime: peers.chosen(runtime, options) for runtime in options.runtime}
    names = list(dict.fromkeys(name for runtime in columns.values() for name in runtime))
    print("SQNR dB (INT8 operators of those with multiply-accumulates)\n")
    peers.markdown(("model", "runtime", "ours", *names, "ours - best, dB"))
    print("|---" * (len(names) + 4) + "|", flush=True)
    behind = []
    rows = 0
    for subject in _subjects(options):
        for runtime, quantizers in columns.items():
            rows += 1
            ours, theirs = _measure(subject, runtime, quantizers)
            scores = {n: cell.sqnr_db for n, cell in theirs.items() if isinstance(cell, Cell)}
            best = max(scores, key=scores.__getitem__, default="")
            ahead_db = ours.sqnr_db - scores.get(best, -math.inf)
            if ahead_db < 0:
                behind.append(f"{subject.name} on {runtime}: {ahead_db:.2f} dB to {best}")
            cells = (theirs.get(name, "–") for name in names)
            peers.markdown((subject.name, runtime, ours, *cells, f"{ahead_db:+.2f}"))
    print("", *behind, sep="\n")
    peers.verdict(f"{rows - len(behind)} of {rows} rows at or above the best peer", not behind)
    del library


def _measure(subject, runtime, quantizers):
    """Our cell and each peer's; one that fails says so in a line."""
    fp32, ours = subject.fp32[runtime], subject.ours[runtime]
    want = peers.logits(fp32, subject.held_out)
    target = ours.manifest.target

    def score(artifact):
        got = peers.logits(artifact, subject.held_out, target)
        if not np.isfinite(got).all():
            raise ValueError("its outputs are not finite")
        return Cell(peers.sqnr_db(want, got), *int8_ops(artifact, target))

    cells = {}
    for name, quantize in quantizers.items():
        print(f"{subject.name} {runtime} {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
            try:
                out = Path(folder) / "out"
                cells[name] = score(quantize(peers.model_file(fp32), subject.calibration, out))
            except Exception as error:  # a peer's failure is a result
                cells[name] = f"fails: {peers.one_line(error)}"
        gc.collect()
    return score(peers.model_file(ours)), cells


def _subjects(options):
    """Export one model after the other; its files go when the next is asked for."""
    for row in (None, *lineage.ROWS):
        name = row.name if row else "digits"
        if options.rows and not any(word in name for word in options.rows):
            continue
        if row and not (row.fits_ci or options.full):
            continue
        print(f"{name}: exporting", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
            work = Path(folder)
            yield _digits(work) if row is None else _of_lineage(row, work, options)


def _digits(folder):
    calibration, held_out = peers.digits()
    return Subject(
        "digits", *_export(ModelRequest("digits"), "digits", folder), calibration, held_out.images
    )


def _of_lineage(row, folder, options):
    torch.manual_seed(options.seed)
    request, _ = lineage.request(row, folder / "source", not options.full)
    photographs = lineage.photographs(lineage.CALIBRATION_IMAGES + lineage.EVALUATION_IMAGES)
    halves = np.split(photographs, [lineage.CALIBRATION_IMAGES])
    files = [
        str(peers.save_npz(folder / f"{role}.npz", images))
        for role, images in zip(("calibration", "held-out"), halves, strict=True)
    ]
    fp32, ours = _export(request, files[0], folder)
    spec = ours["openvino"].manifest.preprocessing.host
    calibration, held_out = (open_images(name, "calibration", spec, ()) for name in files)
    batches = [batch.images for batch in calibration.batches(1)]
    return Subject(row.name, fp32, ours, batches, next(held_out.batches(len(halves[1]))).images)


def _export(request, calib_data, folder):
    """Our FP32 and INT8 bundles by runtime."""
    results = peers.export(request, peers.RUNTIMES, folder / "artifacts", calib_data=calib_data)
    fp32, int8 = (
        {runtime: result.bundle for runtime, result in zip(peers.RUNTIMES, part, strict=True)}
        for part in (results[::2], results[1::2])
    )
    return fp32, int8


if __name__ == "__main__":
    main()

"""What QAT wins back where PTQ visibly loses: `digits` with 4-bit weights, on noisy images.

Clean digits are so easy that even 4-bit weights lose nothing on them; with noise FP32 itself is
near its limit, and what rounding adds shows. Every seed has a noise and an order of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import peers
from vitedge.core.manifest import Bounds
from vitedge.core.progress import SILENT
from vitedge.core.spec import Training
from vitedge.data.open import open_images
from vitedge.export import job, qat
from vitedge.export.request import ExportRequest
from vitedge.models.sources import ModelRequest
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]
RECIPE = """
name = "w4"
description = "4-bit weights, the plainest way"
num_samples = 64
activations = "minmax"
weights = "minmax"
weight_bits = 4
equalize = "off"
"""


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=50.0, help="standard deviation, of 255")
    parser.add_argument("--copies", type=int, default=4, help="noisy versions of each image")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--target", default="onnxruntime")
    options = parser.parse_args()
    rows, shares = [], []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
            ptq, trained = _run(Path(name), seed, options)
        before, after = (result.drop_pp for result in (ptq, trained))
        shares.append(100 * (before - after) / before)
        fp32 = ptq.report.accuracy.fp32
        figures = [100 * fp32, before, after, shares[-1]]
        figures += [result.report.numerics.sqnr_db for result in (ptq, trained)]
        rows.append((str(seed), *(f"{value:.2f}" for value in figures)))
        print(f"seed {seed}: PTQ loses {before:.2f} pp, QAT {after:.2f} pp", flush=True)
    columns = ("seed", "FP32 %", "PTQ loses pp", "QAT loses pp", "recovered %", "PTQ dB", "QAT dB")
    peers.table(columns, rows)
    spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
    mean = statistics.mean(shares)
    peers.verdict(f"recovers {mean:.0f} ± {spread:.0f}% of PTQ's loss (≥ 80%)", mean >= 80)


def _run(folder, seed, options):
    train = _noisy(folder / "train.npz", "calibration", seed, options)
    evaluation = _noisy(folder / "eval.npz", "evaluation", seed + 1000, options)
    (folder / "w4.toml").write_text(RECIPE)
    request = ExportRequest(
        model=ModelRequest(),
        targets=(options.target,),
        precision="int8",
        calib_data=str(train),
        calibration=str(folder / "w4.toml"),
        eval_data=str(evaluation),
        duration_s=0,
        output=folder / "artifacts",
        force=True,
    )
    how = Training(epochs=options.epochs, learning_rate=options.learning_rate, seed=seed)
    ptq = job.export(request, SILENT)[-1]
    asked = qat.QatRequest(
        request, str(train), how, resume=False, tensorboard=None, bounds=Bounds()
    )
    return ptq, qat.run(asked, SILENT)[-1]


def _noisy(path, role, seed, options):
    """An .npz of `copies` noisy versions of every image of one side of the split."""
    images = open_images("digits", role, DIGITS.preprocess, DIGITS.labels)
    (batch,) = images.batches(len(images))
    clean = np.concatenate([batch.images] * options.copies).astype(np.float64)
    noise = np.random.default_rng(seed).normal(0, options.noise, clean.shape)
    noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
    np.savez(path, images=noisy, labels=np.concatenate([batch.labels] * options.copies))
    return path


if __name__ == "__main__":
    main()

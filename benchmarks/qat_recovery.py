"""What QAT wins back where PTQ visibly loses, beside adaptive rounding: 4 bits, noisy digits.

Clean digits are so easy that even 4-bit weights lose nothing on them; with noise FP32 itself is
near its limit, and what rounding adds shows. Every seed has a noise and an order of its own, the
hybrid weights of its own, too.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import vitedge as ve
from benchmarks import conv_transformer, peers
from vitedge.core.manifest import Bounds
from vitedge.core.progress import SILENT
from vitedge.core.spec import Training
from vitedge.data.open import open_images
from vitedge.export import job, qat
from vitedge.export.request import ExportRequest
from vitedge.export.training_set import QatRequest
from vitedge.models.sources import ModelRequest
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]
MODELS = {
    "digits": lambda seed: ModelRequest(),
    "conv-transformer": lambda seed: ve.load(
        conv_transformer.trained("digits", seed),
        preprocess=DIGITS.preprocess,
        labels=DIGITS.labels,
        name="conv-transformer",
    ),
}
NEAREST = """
name = "w4"
description = "4-bit weights, the plainest way"
num_samples = 64
activations = "minmax"
weights = "minmax"
weight_bits = 4
equalize = "off"
"""
NOTHING = "–"
"""Where PTQ loses nothing."""
COLUMNS = ("model", "seed", "FP32 %", "PTQ loses pp", "adaptive", "QAT", "adaptive wins back %")
COLUMNS += ("QAT", "PTQ dB", "adaptive", "QAT")


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=50.0, help="standard deviation, of 255")
    parser.add_argument("--copies", type=int, default=4, help="noisy versions of each image")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--target", default="onnxruntime")
    options = parser.parse_args()
    print(peers.host())
    rows, lost = [], {name: [] for name in options.models}
    for name in options.models:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
                results = _run(Path(folder), MODELS[name](seed), seed, options)
            drops = [result.drop_pp for result in results]
            lost[name].append(drops)
            fp32 = 100 * results[0].report.accuracy.fp32
            levels = [result.report.numerics.sqnr_db for result in results]
            figures = [f"{value:.2f}" for value in (fp32, *drops)]
            rows.append(
                (name, str(seed), *figures, *_shares([drops]), *map("{:.2f}".format, levels))
            )
            print(
                f"{name}, seed {seed}: nearest, adaptive and QAT lose {figures[1:]} pp", flush=True
            )
    peers.table(COLUMNS, rows)
    for name, drops in lost.items():
        adaptive, trained = _shares(drops)
        peers.verdict(
            f"{name}: over all seeds training wins back {trained}% of PTQ's loss (≥ 80%), adaptive "
            f"rounding {adaptive}%",
            trained == NOTHING or float(trained) >= 80,
        )


def _shares(drops):
    """What adaptive rounding and training win back of what PTQ loses, over all seeds, percent."""
    before, *after = map(sum, zip(*drops, strict=True))
    return [f"{100 * (1 - loss / before):.0f}" if before > 0 else NOTHING for loss in after]


def _run(folder, model, seed, options):
    """By rounding to the nearest, by adaptive rounding, and trained on from the first."""
    train = _noisy(folder / "train.npz", "calibration", seed, options)
    evaluation = _noisy(folder / "eval.npz", "evaluation", seed + 1000, options)
    adaptive = Path(__file__).parents[1] / "calibration" / "adaptive.toml"
    recipes = {"nearest": NEAREST, "adaptive": f"{adaptive.read_text()}weight_bits = 4\n"}
    for name, recipe in recipes.items():
        (folder / f"{name}.toml").write_text(recipe)
    nearest, adaptive = (
        ExportRequest(
            model=model,
            targets=(options.target,),
            precision="int8",
            calib_data=str(train),
            calibration=str(folder / f"{name}.toml"),
            eval_data=str(evaluation),
            duration_s=0,
            output=folder / name,
        )
        for name in recipes
    )
    how = Training(epochs=options.epochs, learning_rate=options.learning_rate, seed=seed)
    asked = QatRequest(
        export=replace(nearest, output=folder / "trained"),
        train_data=str(train),
        training=how,
        resume=False,
        tensorboard=None,
        bounds=Bounds(),
    )
    ptq = [job.export(request, SILENT)[-1] for request in (nearest, adaptive)]
    return [*ptq, qat.run(asked, SILENT)[-1]]


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

"""Broken artifacts fail, harmless re-exports pass: `python -m benchmarks.gate_sabotage`.

Each model is exported again with other calibration images, and each export is broken in four ways.
`digits` has 719 images; `shapes` draws new ones for every trial.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from benchmarks import peers
from tests.support import sabotage
from vitedge.core.bundle import REPORT
from vitedge.core.progress import SILENT
from vitedge.core.report import read
from vitedge.data import shapes
from vitedge.gate.config import load
from vitedge.gate.limits import Limits
from vitedge.gate.run import run

WAYS = {
    "one layer's scale × 1.5": sabotage.scale_of_one_layer,
    "one class's logit + 5": sabotage.logit_of_one_class,
    "RGB read as BGR": sabotage.red_for_blue,
    "normalisation dropped": sabotage.no_normalisation,
}
LIMITS = Limits(max_drop_pp=1.0, min_agreement=0.98)
ALLOWED_DB = 5.0
"""Of SQNR, under what the export of the first seed has, by its own report."""
CONFIDENCE = 0.95
IMAGES = 100
"""Of `shapes`, in each trial."""
EXPORTS = {"digits": 20, "shapes": 2}
"""Calibrated on other images each; further trials of `shapes` draw other images to measure on."""


def export(model, seed, output):
    """Export with calibration images drawn by `seed`; returns the INT8 bundle."""
    recipe = output / f"seed-{seed}.toml"
    recipe.write_text(
        f'name = "seed-{seed}"\ndescription = "100 images, drawn anew"\nnum_samples = 100\n'
        f'selection = "random"\nseed = {seed}\nactivations = "mse"\nweights = "mse"\n'
    )
    folder = output / f"{model}-{seed}"
    results = peers.export(model, ("onnxruntime",), folder, calibration=str(recipe))
    return results[-1].bundle.path


def drawn(trial, path):
    """New images of `shapes`, with their masks."""
    first = 10_000 + trial * IMAGES
    images, masks = zip(*(shapes.draw(first + place) for place in range(IMAGES)), strict=True)
    np.savez(path, images=np.stack(images), masks=np.stack(masks))
    return str(path)


def judged(path, data, limits):
    verdict = run([path], limits, SILENT, settings=load(None), confidence=CONFIDENCE, data=data)
    return verdict.judged[0]


def trials(model, count, folder):
    """The gate's answers to `count` exports, each as it is and broken in every way."""
    judgements = defaultdict(list)
    limits = LIMITS
    for trial in range(count):
        seed = trial % EXPORTS[model]
        path = next((folder / f"{model}-{seed}").glob("*-int8"), None)
        path = path or export(model, seed, folder)
        data = "digits" if model == "digits" else drawn(trial, folder / "drawn.npz")
        if not trial:
            sqnr = read(path / REPORT).numerics.sqnr_db
            limits = msgspec.structs.replace(LIMITS, min_sqnr_db=round(sqnr - ALLOWED_DB, 1))
        judgements["re-export with another seed"].append(judged(path, data, limits))
        for name, how in WAYS.items():
            if model == "digits" and how is sabotage.red_for_blue:
                continue  # they are grey
            broken = path.with_name("broken")
            sabotage.sabotage(path, broken, how, seed=trial)
            judgements[name].append(judged(broken, data, limits))
            shutil.rmtree(broken)
        told = ", ".join(f"{name}: {repeats[-1].answer}" for name, repeats in judgements.items())
        print(f"{model} {trial + 1}/{count}: {told}", file=sys.stderr, flush=True)
    return judgements


def show(model, judgements):
    for name, repeats in judgements.items():
        drop_checks, _, sqnr_checks = zip(*(judged.checks for judged in repeats), strict=True)
        answers = [judged.answer for judged in repeats]
        drop = [check.answer for check in drop_checks]
        drops = [check.value or 0.0 for check in drop_checks]
        sqnr = [check.value or 0.0 for check in sqnr_checks]
        needed = [check.needed for check in drop_checks if check.needed]
        print(
            f"| {model} | {name} | {answers.count('failed')} failed, "
            f"{answers.count('passed')} passed of {len(repeats)} "
            f"| {drop.count('failed')} / {drop.count('inconclusive')} / {drop.count('passed')} "
            f"| {median(drops):.2f} ({min(drops):.2f} to {max(drops):.2f}) "
            f"| {median(sqnr):.1f} ({min(sqnr):.1f} to {max(sqnr):.1f}) "
            f"| {f'{int(median(needed)):,}' if needed else ''} |",
            flush=True,
        )


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("models", nargs="*", default=["digits", "shapes"])
    arguments = parser.parse_args()
    print(f"limits: {LIMITS}, SQNR {ALLOWED_DB:g} dB under the first export's\n")
    print(
        "| model | artifact | gate | by the drop alone: failed / inconclusive / passed "
        "| drop, pp | SQNR, dB | images that would decide |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            show(model, trials(model, arguments.trials, Path(folder)))


if __name__ == "__main__":
    main()

"""Every shipped calibration recipe on the embedded reference and both runtimes, beside NNCF.

NNCF runs with its defaults for a transformer on the images that `default` draws.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import peers
from vitedge.core import catalog
from vitedge.measure.statistics import discordant, drop_pp

COLUMNS = ("recipe", "runtime", "images", "SQNR dB", "drop pp", "95% interval", "quantize s")


def main():
    peers.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        rows = [row for runtime in peers.RUNTIMES for row in _rows(runtime, Path(name) / runtime)]
    peers.table(COLUMNS, rows)


def _rows(runtime, folder):
    images, held_out = peers.digits()
    seconds = []
    for recipe in sorted(catalog.calibrations().values(), key=lambda recipe: recipe.num_samples):
        with peers.within_ptq(partial(peers.timed, seconds)):
            fp32, ours = peers.export_bundles(
                "digits", runtime, folder / recipe.name, "digits", calibration=recipe.name
            )
        record = ours.manifest.quantization
        reference = peers.logits(fp32, held_out.images)
        scores = _scores(reference, peers.logits(ours, held_out.images), held_out.labels)
        yield recipe.name, runtime, str(record.calibration.images), *scores, f"{seconds[-1]:.1f}"
    quantize = peers.quantizers(runtime, None)["NNCF transformer"]
    with peers.timed(seconds):
        theirs = quantize(peers.model_file(fp32), images, folder / "nncf")
    logits = peers.logits(theirs, held_out.images, ours.manifest.target)
    scores = _scores(reference, logits, held_out.labels)
    yield "NNCF", runtime, str(len(images)), *scores, f"{seconds[-1]:.1f}"


def _scores(reference, logits, labels):
    """SQNR, the drop, and the interval of the drop."""
    right = [values.argmax(-1) == labels for values in (reference, logits)]
    lost_pp = 100 * float(np.mean(right[0]) - np.mean(right[1]))
    low, high = drop_pp(*discordant(*right), len(labels), 0.95)
    sqnr_db = peers.sqnr_db(reference, logits)
    return f"{sqnr_db:.1f}", f"{lost_pp:.2f}", f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main()

"""Every shipped calibration recipe on the embedded reference and both runtimes, beside NNCF.

NNCF runs with its defaults for a transformer on the first 300 images that `default` draws.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import peers
from vitedge.core import catalog
from vitedge.core.bundle import Bundle
from vitedge.data.open import open_images
from vitedge.measure.accuracy.validation import predict_all
from vitedge.measure.statistics import paired_drop_pp
from vitedge.models.zoo import ZOO

DIGITS = ZOO["digits"]


def main() -> None:
    peers.arguments(__doc__).parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        for runtime in ("openvino", "onnxruntime"):
            rows += _rows(runtime, Path(name))
    peers.table(
        ("recipe", "runtime", "images", "SQNR dB", "drop pp", "95% interval", "quantize s"), rows
    )


def _rows(runtime: str, folder: Path) -> list[tuple[str, ...]]:
    evaluation = open_images("digits", "evaluation", DIGITS.preprocess, DIGITS.labels)
    held_out = next(evaluation.batches(len(evaluation)))
    rows = []
    for recipe in sorted(catalog.calibrations().values(), key=lambda recipe: recipe.num_samples):
        fp32, ours, seconds = _ours(runtime, recipe.name, folder / recipe.name)
        used = ours.manifest.quantization
        assert used is not None
        with peers.open_ours(fp32) as session:
            reference = predict_all(session, held_out.images)
        with peers.open_ours(ours) as session:
            logits = predict_all(session, held_out.images)
        rows.append(
            _row(
                recipe.name,
                runtime,
                used.calibration.images,
                reference,
                logits,
                held_out.labels,
                seconds,
            )
        )
    calibration = open_images("digits", "calibration", DIGITS.preprocess, DIGITS.labels)
    images = [batch.images for batch in calibration.sample(300, 0)]
    quantize: Callable[..., Path] = peers.nncf_openvino
    model = fp32.path / "model.xml"
    if runtime == "onnxruntime":
        quantize, model = peers.nncf_onnx, fp32.path / "model.onnx"
    start = time.perf_counter()
    theirs = quantize(model, images, folder / f"nncf-{runtime}", model_type="transformer")
    seconds = time.perf_counter() - start
    with peers.open_file(theirs, ours.manifest.target) as session:
        logits = predict_all(session, held_out.images)
    rows.append(_row("NNCF", runtime, len(images), reference, logits, held_out.labels, seconds))
    return rows


def _ours(runtime: str, recipe: str, folder: Path) -> tuple[Bundle, Bundle, float]:
    """Bundles of one recipe, and the seconds its quantization took: nothing else of the export."""
    spent = 0.0

    @contextlib.contextmanager
    def timed() -> Iterator[None]:
        nonlocal spent
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start

    with peers.within_ptq(timed):
        fp32, int8 = peers.export_bundles("digits", runtime, folder, "digits", None, recipe)
    return fp32, int8, spent


def _row(name, runtime, count, reference, logits, labels, seconds) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    right = [(values.argmax(-1) == labels) for values in (reference, logits)]
    drop = 100 * float(np.mean(right[0]) - np.mean(right[1]))
    low, high = paired_drop_pp(right[0], right[1], 0.95)
    return (
        name,
        runtime,
        str(count),
        f"{peers.sqnr_db(reference, logits):.1f}",
        f"{drop:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main()

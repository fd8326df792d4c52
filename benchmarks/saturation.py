"""Full-range and pair-safe INT8 weights on this CPU, and NNCF's own OpenVINO model beside them.

The QDQ graph run in float says what INT8 should compute; what a runtime loses beyond that is
saturation of 16-bit accumulators, which CPUs without VNNI have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks import peers
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.machine import describe_machine
from vitedge.core.progress import SILENT
from vitedge.core.runtime import runtime_of
from vitedge.data.imageset import Batch
from vitedge.data.open import open_images
from vitedge.export.onnx import export
from vitedge.graph.io import write
from vitedge.measure.accuracy.validation import predict_all
from vitedge.models.sources import ModelRequest, resolve

TARGETS = ("openvino-cpu", "onnxruntime-cpu")


def main() -> None:
    peers.arguments(__doc__).parse_args()
    here = describe_machine(threads=0)
    print(f"{here.cpu} ({', '.join(here.isa or ())}), digits, 719 held-out images")
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        peers.table(
            ("target", "weights", "SQNR dB in float", "SQNR dB on the runtime", "top-1 %"),
            _rows(Path(name)),
        )


def _rows(folder: Path) -> list[tuple[str, ...]]:
    model = resolve(ModelRequest())
    exported = export(model, folder, 1, 20)
    spec, labels = model.identity.preprocess, model.identity.labels
    evaluation = open_images("digits", "evaluation", spec, labels)
    held_out = next(evaluation.batches(len(evaluation)))
    fp32 = exported.outputs(held_out.images)
    recipe = catalog.find_calibration("default")
    calibration = open_images("digits", "calibration", spec, labels)
    images = [batch.images for batch in calibration.sample(recipe.num_samples, recipe.seed)]
    rows = []
    for name in TARGETS:
        target = catalog.targets()[name]
        for weights in ("full", "pair_safe"):
            dialect = msgspec.structs.replace(target.quantization, weights=weights)
            work = folder / f"{name}-{weights}"
            built = work / "built"
            built.mkdir(parents=True)
            qdq, _ = ptq(exported.path, images, recipe, dialect)
            write(qdq, work / "model.onnx")
            runtime_of(target).lower(work / "model.onnx", target, built, SILENT)
            model_file = next(built.glob("model.[ox]*"))
            with peers.open_file(model_file, target) as session:
                logits = predict_all(session, held_out.images)
            exact = _in_float(work / "model.onnx", held_out.images)
            rows.append(
                (
                    name,
                    weights,
                    f"{peers.sqnr_db(fp32, exact):.1f}",
                    *_score(fp32, logits, held_out),
                )
            )
    target = catalog.targets()["openvino-cpu"]
    theirs = peers.nncf_openvino(exported.path, images, folder / "nncf", model_type="transformer")
    with peers.open_file(theirs, target) as session:
        logits = predict_all(session, held_out.images)
    rows.append((target.name, "NNCF's own", "–", *_score(fp32, logits, held_out)))
    return rows


def _in_float(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The QDQ graph as written: every Q and DQ a float operation, nothing fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def _score(
    fp32: NDArray[np.float32], logits: NDArray[np.float32], held_out: Batch
) -> tuple[str, str]:
    right = np.mean(logits.argmax(-1) == held_out.labels)
    return f"{peers.sqnr_db(fp32, logits):.1f}", f"{100 * right:.2f}"


if __name__ == "__main__":
    main()

"""Full-range and pair-safe INT8 weights on this CPU, and NNCF's own OpenVINO model beside them.

The QDQ graph run in float says what INT8 should compute; what a runtime loses beyond that is
saturation of 16-bit accumulators, which CPUs without VNNI have.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from benchmarks import peers
from tests.support.ptq import ptq
from vitedge.core import catalog
from vitedge.core.progress import SILENT
from vitedge.core.runtime import runtime_of
from vitedge.export.onnx import export
from vitedge.graph.io import write
from vitedge.models.sources import ModelRequest, resolve

TARGETS = ("openvino-cpu", "onnxruntime-cpu")


def main():
    peers.arguments(__doc__).parse_args()
    print(f"{peers.host()}; digits, 719 held-out images")
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        peers.table(
            ("target", "weights", "SQNR dB in float", "SQNR dB on the runtime", "top-1 %"),
            _rows(Path(name)),
        )


def _rows(folder):
    exported = export(resolve(ModelRequest()), folder, 1, 20)
    images, held_out = peers.digits()
    fp32 = exported.outputs(held_out.images)[0]
    recipe = catalog.find_calibration("default")

    def score(artifact, target):
        logits = peers.logits(artifact, held_out.images, target)
        right = np.mean(logits.argmax(-1) == held_out.labels)
        return f"{peers.sqnr_db(fp32, logits):.1f}", f"{100 * right:.2f}"

    for name, weights in product(TARGETS, ("full", "pair_safe")):
        target = catalog.targets()[name]
        dialect = msgspec.structs.replace(target.quantization, weights=weights)
        work = folder / f"{name}-{weights}"
        built = work / "built"
        built.mkdir(parents=True)
        qdq, _ = ptq(exported.path, images, recipe, dialect)
        write(qdq, work / "model.onnx")
        runtime_of(target).lower(work / "model.onnx", target, built, SILENT)
        exact = _in_float(work / "model.onnx", held_out.images)
        in_float = f"{peers.sqnr_db(fp32, exact):.1f}"
        yield name, weights, in_float, *score(next(built.glob("model.[ox]*")), target)
    theirs = peers.nncf_openvino(exported.path, images, folder / "nncf", model_type="transformer")
    yield "openvino-cpu", "NNCF's own", "–", *score(theirs, catalog.targets()["openvino-cpu"])


def _in_float(path, images):
    """The QDQ graph as written: every Q and DQ a float operation, nothing fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


if __name__ == "__main__":
    main()

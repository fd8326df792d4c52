"""Hybrids of convolutions and attention on ONNX Runtime: ours, FP32 and quantize_static, in turn.

The weights are random, so the SQNR says how well each follows FP32 and nothing of top-1.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np

import vitedge as ve
from benchmarks import peers
from vitedge.core.errors import VitedgeError
from vitedge.measure.accuracy.validation import predict_all
from vitedge.measure.latency.clock import measure
from vitedge.runtimes import open_session

MODELS = (
    *("timm:levit_conv_128s", "timm:focalnet_tiny_srf", "timm:efficientvit_b0"),
    *("timm:mobilevit_xxs", "timm:edgenext_xx_small", "timm:repvit_m0_9"),
    *("timm:mobilenetv4_hybrid_medium", "vt_resnet18"),
)
HELD_OUT, SMALLER, SLOWER, SQNR_DB = 4, 3.0, 1.02, 25.0


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for each session")
    parser.add_argument("--samples", type=int, default=64, help="calibration images")
    options = parser.parse_args()
    declared = peers.declare_torchvision_ops()
    print(peers.host())
    rows = []
    for model in options.models:
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
            try:
                rows.append(_compare(model, Path(folder), options))
            except VitedgeError as error:
                print(f"{model}: {error.what}", flush=True)
    peers.table(
        ("", "INT8", "stored", "of", "× smaller", "× FP32's time", "× quantize_static's", "dB"),
        [[*row[:4], *(f"{figure:.2f}" for figure in row[4:7]), f"{row[7]:.1f}"] for row in rows],
    )
    del declared
    for name, *_, smaller, slower, against, quality in rows:
        peers.verdict(f"{name} is {smaller:.2f}× smaller (≥ {SMALLER:g}×)", smaller >= SMALLER)
        peers.verdict(f"{name} takes {slower:.2f}× FP32's time (≤ {SLOWER:g}×)", slower <= SLOWER)
        peers.verdict(f"{name} takes {against:.2f}× quantize_static's (≤ 1×)", against <= 1)
        peers.verdict(f"{name} keeps {quality:.1f} dB (≥ {SQNR_DB:g})", quality >= SQNR_DB)


def _compare(model, folder, options):
    """A row of the table: counts of layers, then the figures that are promised."""
    spec = ve.load(model, random_weights=True).identity.preprocess
    images = peers.photographs(options.samples + HELD_OUT, spec.height, spec.width, seed=1)
    calibration, held_out = images[: options.samples], images[options.samples :]
    calib = peers.save_npz(folder / "calib.npz", calibration)
    fp32, ours = peers.export_bundles(
        model, "onnxruntime", folder / "ours", str(calib), num_samples=options.samples
    )
    file = peers.model_file(fp32)
    static = peers.ort_static(file, np.split(calibration, len(calibration)), folder / "static")
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(open_session(ours)),
            stack.enter_context(open_session(fp32)),
            stack.enter_context(peers.open_file(static, ours.manifest.target)),
        ]
        got, want = (predict_all(session, held_out) for session in sessions[:2])
        feeds = [{session.inputs[0].name: held_out[:1]} for session in sessions]
        timed = measure(sessions, feeds, options.duration)
    layers = ours.manifest.quantization.layers
    sizes = [file.stat().st_size, peers.model_file(ours).stat().st_size]
    return (
        model,
        sum(layer.quantized for layer in layers),
        sum(layer.stored for layer in layers),
        len(layers),
        sizes[0] / sizes[1],
        *(1 / timed.speedup(0, rival)[0] for rival in (1, 2)),
        peers.sqnr_db(want, got),
    )


if __name__ == "__main__":
    main()

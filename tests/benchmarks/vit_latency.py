"""Batch-1 latency and SQNR of a ViT: ours, each runtime's own INT8 path, and FP32, in turn.

The weights are random, so the SQNR says how well each follows FP32 and nothing of top-1.
"""

from __future__ import annotations

import contextlib
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import peers
from vitedge import bench, host
from vitedge.models.zoo import ZOO
from vitedge.validate import predict_all

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def main() -> None:
    parser = peers.arguments(__doc__, model="vit_base_patch16_224")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds for each session")
    parser.add_argument("--samples", type=int, default=32, help="calibration images")
    parser.add_argument("--runtime", nargs="+", default=["openvino", "onnxruntime"])
    options = parser.parse_args()
    here = host.describe(threads=0)
    isa = ", ".join(here.isa)
    print(f"{options.model}, batch 1, {host.usable_cores()} threads, {here.cpu} ({isa})")
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
        for runtime in options.runtime:
            _compare(runtime, options, Path(name) / runtime, bool(VNNI & set(here.isa)))


def _compare(runtime: str, options: Namespace, folder: Path, vnni: bool) -> None:
    folder.mkdir()
    spec = ZOO[options.model].preprocess
    images = peers.photographs(options.samples + 16, spec.height, spec.width, seed=1)
    calibration, held_out = images[: options.samples], images[options.samples :]
    calib = peers.save_npz(folder / "calib.npz", calibration)
    fp32, ours = peers.export_bundles(options.model, runtime, folder, str(calib), options.samples)
    target = ours.manifest.target
    batches = [calibration[i : i + 1] for i in range(len(calibration))]
    if runtime == "openvino":
        peer, theirs = (
            "nncf",
            peers.nncf_openvino(fp32.path / "model.xml", batches, folder / "nncf"),
        )
    else:
        peer = "quantize_static"
        theirs = peers.ort_static(fp32.path / "model.onnx", batches, folder / "static")
    with contextlib.ExitStack() as stack:
        sessions = {
            "ours": stack.enter_context(peers.open_ours(ours)),
            peer: stack.enter_context(peers.open_file(theirs, target)),
            "fp32": stack.enter_context(peers.open_ours(fp32)),
        }
        logits = {name: predict_all(session, held_out) for name, session in sessions.items()}
        feeds = [{session.inputs[0].name: held_out[:1]} for session in sessions.values()]
        timed = bench.measure(list(sessions.values()), feeds, options.duration)
    print(f"\n{target.name}")
    peers.table(
        ("", "p50 ms", "p90 ms", "ours is × faster", "95% interval", "SQNR dB"),
        [_row(i, name, timed, logits) for i, name in enumerate(sessions)],
    )
    against_peer, against_fp32 = timed.speedup(0, 1)[0], timed.speedup(0, 2)[0]
    if runtime == "openvino":
        slower = 1 / against_peer
        peers.verdict(f"{slower:.3f}× of nncf's latency (≤ 1.03×)", slower <= 1.03)
        fast_enough = against_fp32 >= 2.6 if vnni else None
        peers.verdict(
            f"{against_fp32:.2f}× faster than OpenVINO FP32 (≥ 2.6× where there is VNNI)",
            fast_enough,
        )
    else:
        peers.verdict(f"{against_peer:.2f}× faster than quantize_static (> 1×)", against_peer > 1.0)


def _row(
    index: int, name: str, timed: bench.Comparison, logits: dict[str, NDArray[np.float32]]
) -> tuple[str, ...]:
    latency = timed.latencies[index]
    row = (name, f"{latency.p50_ms:.1f}", f"{latency.p90_ms:.1f}" if latency.p90_ms else "–")
    quality = "–" if name == "fp32" else f"{peers.sqnr_db(logits['fp32'], logits[name]):.1f}"
    if index == 0:
        return (*row, "–", "–", quality)
    ratio, (low, high) = timed.speedup(0, index)
    return (*row, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", quality)


if __name__ == "__main__":
    main()

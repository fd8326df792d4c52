"""Latency of INT8 ViTs: ours beside every peer's artifact on the same runtime, timed in turn.

The weights are random, so the SQNR says how well each follows FP32 and nothing of top-1. Factors
and offsets of LayerNorm are drawn, too: they start at 1 and 0, which a runtime leaves out, and no
trained model has those. ONNX Runtime's calibrators differ in scales alone: one stands for all.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

import vitedge as ve
from benchmarks import peers
from vitedge.core.machine import describe_machine
from vitedge.measure.accuracy.validation import predict_all
from vitedge.measure.latency.clock import measure
from vitedge.models.zoo import ZOO
from vitedge.runtimes import open_session
from vitedge.runtimes.onnxruntime import CONTRIB

VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
MODELS = [f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")]
BF16 = {"avx512_bf16", "amx_bf16", "amx_int8"}
"""With one of these OpenVINO computes floats in BF16 unless it is told otherwise."""
DEFAULTS = "OpenVINO's defaults"
PLAIN = "ours, in ONNX's operators"
SAME_LATENCY = ("ORT Percentile", "ORT Entropy")
HELD_OUT = 8


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--runtime", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--duration", type=float, default=15.0, help="seconds for each session")
    parser.add_argument("--samples", type=int, default=8, help="calibration images")
    parser.add_argument(
        "--untouched-norms", action="store_true", help="LayerNorms as they start: by 1, plus 0"
    )
    peers.add_peers(parser)
    options = parser.parse_args()
    print(peers.host())
    peers.print_absent(options)
    vnni = bool(VNNI & set(describe_machine(threads=0).isa or ()))
    for model, batch, runtime in product(options.models, options.batch, options.runtime):
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
            _compare(model, batch, runtime, Path(name), options, vnni)


def _compare(model, batch, runtime, folder, options, vnni):
    spec = ZOO[model].preprocess
    count = batch * max(1, options.samples // batch)
    images = peers.photographs(count + HELD_OUT, spec.height, spec.width, seed=1)
    calibration, held_out = images[:count], images[count:]
    calib = peers.save_npz(folder / "calib.npz", calibration)
    source = model if options.untouched_norms else _with_drawn_norms(model)
    fp32, ours = peers.export_bundles(
        source, runtime, folder, str(calib), num_samples=count, batch=batch
    )
    artifacts, failures = _quantize(fp32, np.split(calibration, count // batch), folder, options)
    with contextlib.ExitStack() as stack:
        sessions = {"ours": stack.enter_context(open_session(ours))}
        if CONTRIB in ours.manifest.files:
            plain_graph = peers.open_file(peers.model_file(ours), ours.manifest.target)
            sessions[PLAIN] = stack.enter_context(plain_graph)
        for name, artifact in artifacts.items():
            try:
                opened = peers.open_file(artifact, ours.manifest.target)
                sessions[name] = stack.enter_context(opened)
            except Exception as error:  # a peer's failure is a result
                failures[name] = peers.one_line(error)
        sessions["fp32"] = stack.enter_context(open_session(fp32))
        if runtime == "openvino" and BF16.intersection(describe_machine(threads=0).isa or ()):
            defaults = {**artifacts, "fp32": peers.model_file(fp32)}
            for name, artifact in defaults.items():
                opened = peers.open_file(artifact, plain(ours.manifest.target))
                sessions[f"{name}, {DEFAULTS}"] = stack.enter_context(opened)
        logits = {name: predict_all(session, held_out) for name, session in sessions.items()}
        feed = np.resize(held_out, (batch, *held_out.shape[1:]))
        feeds = [{session.inputs[0].name: feed} for session in sessions.values()]
        timed = measure(list(sessions.values()), feeds, options.duration)
    print(f"\n{model}, batch {batch}, {ours.manifest.target.name}")
    peers.table(
        ("", "p50 ms", "p90 ms", "ours is × faster", "95% interval", "SQNR dB"),
        [_row(i, name, timed, logits) for i, name in enumerate(sessions)],
    )
    for name, why in failures.items():
        print(f"{name} fails: {why}")
    _verdicts(list(sessions), timed, runtime, vnni)


def _with_drawn_norms(model):
    """A model of the zoo with random weights, every LayerNorm's factors and offsets among them."""
    reference = ve.load(model, random_weights=True)
    generator = torch.Generator().manual_seed(0)
    for module in reference.content.modules():
        if isinstance(module, nn.LayerNorm):
            size = module.weight.shape
            module.weight.data = torch.exp(0.3 * torch.randn(size, generator=generator))
            module.bias.data = 0.1 * torch.randn(size, generator=generator)
    return reference


def plain(target):
    """`target` with nothing but what OpenVINO does for latency by itself."""
    return msgspec.structs.replace(target, options={"PERFORMANCE_HINT": "LATENCY"})


def _quantize(fp32, batches, folder, options):
    """Every peer's artifact, made one at a time, and why others failed, by name."""
    artifacts, failures = {}, {}
    runtime = fp32.manifest.target.runtime
    for name, quantize in peers.chosen(runtime, options).items():
        if name in SAME_LATENCY:
            continue
        try:
            artifacts[name] = quantize(peers.model_file(fp32), batches, folder / name)
        except Exception as error:  # a peer's failure is a result
            failures[name] = peers.one_line(error)
        gc.collect()
    return artifacts, failures


def _row(index, name, timed, logits):
    latency = timed.latencies[index]
    row = (name, f"{latency.p50_ms:.1f}", f"{latency.p90_ms:.1f}" if latency.p90_ms else "–")
    quality = "–" if name == "fp32" else f"{peers.sqnr_db(logits['fp32'], logits[name]):.1f}"
    if index == 0:
        return (*row, "–", "–", quality)
    ratio, (low, high) = timed.speedup(0, index)
    return (*row, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", quality)


def _verdicts(names, timed, runtime, vnni):
    """What is promised, each against its peer where that one ran."""
    rivals = [place for place, name in enumerate(names) if name not in ("ours", PLAIN, "fp32")]
    rivals = [place for place in rivals if not names[place].startswith("fp32, ")]
    if rivals:
        fastest = min(rivals, key=lambda index: timed.latencies[index].p50_ms)
        ratio, (low, high) = timed.speedup(0, fastest)
        met = None if ratio < 1 <= high else ratio >= 1
        peers.verdict(
            f"{1 / ratio:.3f}× of the latency of {names[fastest]}, the fastest peer (≤ 1×; "
            f"95% interval {1 / high:.3f} to {1 / low:.3f})",
            met,
        )
    if PLAIN in names:
        against, (low, high) = timed.speedup(0, names.index(PLAIN))
        peers.verdict(
            f"{against:.3f}× faster than in ONNX's operators (never slower; 95% interval "
            f"{low:.3f} to {high:.3f})",
            high >= 1,
        )
    against_fp32 = timed.speedup(0, names.index("fp32"))[0]
    if runtime == "openvino":
        peers.verdict(
            f"{against_fp32:.2f}× faster than OpenVINO FP32 (≥ 2.6× where there is VNNI)",
            against_fp32 >= 2.6 if vnni else None,
        )
    elif "ORT MinMax" in names:
        against = timed.speedup(0, names.index("ORT MinMax"))[0]
        peers.verdict(f"{against:.2f}× faster than quantize_static (> 1×)", against > 1)
    print(end="", flush=True)


if __name__ == "__main__":
    main()

"""Adaptive rounding beside rounding to the nearest and every peer, on hybrids and on 4 bits.

Hybrids of timm have random weights: their SQNR says how well each follows FP32. Those that are
trained here, and the references, have accuracy, too.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import msgspec
import numpy as np

import vitedge as ve
from benchmarks import conv_transformer, peers
from vitedge.core import catalog
from vitedge.core.errors import VitedgeError
from vitedge.measure.accuracy.validation import predict_all
from vitedge.measure.latency.clock import measure
from vitedge.models.zoo import ZOO
from vitedge.runtimes import open_session

HYBRIDS = (
    *("timm:mobilevitv2_050", "timm:fastvit_t8", "timm:mobilevit_xxs"),
    *("timm:efficientvit_b0", "timm:levit_conv_128s", "timm:repvit_m0_9"),
)
TRAINED = ("digits", "shapes")
ROUNDINGS = ("nearest", "adaptive")
HELD_OUT, SQNR_DB, SHARE, SLOWER, DROP_PP = 16, 26.0, 0.85, 1.05, 0.3
COLUMNS = ("", "nearest dB", "adaptive dB", "MACs in INT8", "× its time", "PTQ, × nearest's s")


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--hybrids", nargs="*", default=HYBRIDS)
    parser.add_argument("--seeds", type=int, default=3, help="of what is trained; 0: none")
    parser.add_argument("--samples", type=int, default=64, help="calibration images of hybrids")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds for each session")
    peers.add_peers(parser)
    options = parser.parse_args()
    print(peers.host())
    declared = peers.declare_torchvision_ops()
    for model in options.hybrids:
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
            try:
                _hybrid(model, Path(folder), options)
            except VitedgeError as error:
                print(f"{model}: {error.what}", flush=True)
    del declared
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        _trained(Path(folder), options.seeds)


def _hybrid(model, folder, options):
    """A row for each quantizer of one model on OpenVINO."""
    spec = ve.load(model, random_weights=True).identity.preprocess
    images = peers.photographs(options.samples + HELD_OUT, spec.height, spec.width, seed=1)
    calibration, held_out = images[: options.samples], images[options.samples :]
    calib = str(peers.save_npz(folder / "calib.npz", calibration))
    seconds = []
    ours = {}
    for rounding in ROUNDINGS:
        with peers.within_ptq(lambda: peers.timed(seconds)):
            fp32, ours[rounding] = peers.export_bundles(
                model,
                "openvino",
                folder / rounding,
                calib,
                calibration=recipe(folder, rounding, 8),
                num_samples=options.samples,
            )
    onnx = peers.export(model, ("onnxruntime",), folder / "onnx", precision="fp32")[0].bundle
    with contextlib.ExitStack() as stack:
        sessions = {name: stack.enter_context(open_session(b)) for name, b in ours.items()}
        want = predict_all(stack.enter_context(open_session(fp32)), held_out)
        got = {name: predict_all(session, held_out) for name, session in sessions.items()}
        feeds = [{session.inputs[0].name: held_out[:1]} for session in sessions.values()]
        timed = measure(list(sessions.values()), feeds, options.duration)
    levels = {name: peers.sqnr_db(want, logits) for name, logits in got.items()}
    slower = 1 / timed.speedup(1, 0)[0]
    share = _share(ours["adaptive"])
    row = (model, f"{levels['nearest']:.1f}", f"{levels['adaptive']:.1f}", f"{share:.0%}")
    peers.table(COLUMNS, [(*row, f"{slower:.2f}", f"{seconds[1] / seconds[0]:.1f}")])
    batches = np.split(calibration, len(calibration))
    rivals = {}
    for runtime, source in (("openvino", fp32), ("onnxruntime", onnx)):
        for name, quantize in peers.chosen(runtime, options).items():
            if runtime == "onnxruntime" and name != "ORT MinMax":
                continue
            try:
                made = quantize(peers.model_file(source), batches, folder / name)
                rivals[name] = peers.sqnr_db(
                    want, peers.logits(made, held_out, source.manifest.target)
                )
                print(f"{name}: {rivals[name]:.1f} dB", flush=True)
            except Exception as error:  # a peer's failure is a result
                print(f"{name} fails: {peers.one_line(error)}", flush=True)
    best = max(rivals.values(), default=-np.inf)
    peers.verdict(f"{levels['adaptive']:.1f} dB (≥ {SQNR_DB:g})", levels["adaptive"] >= SQNR_DB)
    peers.verdict(f"{share:.0%} of MACs in INT8 (≥ {SHARE:.0%})", share >= SHARE)
    peers.verdict(f"{slower:.2f}× the latency of nearest (≤ {SLOWER:g}×)", slower <= SLOWER)
    peers.verdict(f"best peer: {best:.1f} dB (ours more)", levels["adaptive"] > best)


def _share(bundle):
    layers = [layer for layer in bundle.manifest.quantization.layers if layer.figures]
    macs = sum(layer.figures.macs for layer in layers)
    return sum(layer.figures.macs for layer in layers if layer.quantized) / macs


def _trained(folder, seeds):
    """Drop and SQNR of references and hybrids in 8 and 4 bits, nearest and adaptive."""
    models = [(name, ZOO[name], None) for name in TRAINED]
    for seed in range(seeds):
        for data in TRAINED:
            module = conv_transformer.trained(data, seed)
            models.append((f"hybrid-{data}-{seed}", ZOO[data], module))
    rows, met = [], {4: [], 8: []}
    for name, zoo, module in models:
        for bits in (8, 4):
            drops = {}
            for rounding in ROUNDINGS:
                drops[rounding] = _loss(name, zoo, module, bits, rounding, folder)
            met[bits].append(drops["adaptive"][0])
            cells = [f"{value:.2f}" for pair in drops.values() for value in pair]
            rows.append((f"{name}, W{bits}A8", *cells))
            print(rows[-1], flush=True)
    peers.table(("openvino", "nearest: drop", "dB", "PTQ s", "adaptive: drop", "dB", "PTQ s"), rows)
    for bits, drops in met.items():
        worst = max(drops)
        peers.verdict(f"W{bits}A8 loses {worst:.2f} points at most (≤ {DROP_PP})", worst <= DROP_PP)


def recipe(folder, rounding, bits):
    """A file with the recipe `adaptive`, or the same with weights to the nearest."""
    recipe = msgspec.structs.replace(
        catalog.calibrations()["adaptive"],
        name=f"{rounding}{bits}",
        rounding=rounding,
        bias_correction=rounding == "adaptive",
        weight_bits=bits,
    )
    file = folder / f"{recipe.name}.toml"
    lines = (f"{k} = {json.dumps(v)}" for k, v in msgspec.structs.asdict(recipe).items())
    file.write_text("\n".join(lines))
    return str(file)


def _loss(name, zoo, module, bits, rounding, folder):
    """Points lost, SQNR and seconds of PTQ."""
    data = "shapes" if "shapes" in name else "digits"
    model = (
        data
        if module is None
        else ve.load(
            module,
            preprocess=zoo.preprocess,
            labels=list(zoo.labels),
            name=name,
            task="segmentation" if data == "shapes" else "classification",
        )
    )
    seconds = []
    with peers.within_ptq(lambda: peers.timed(seconds)):
        made = peers.export(
            model,
            ("openvino",),
            folder / f"{name}-{rounding}{bits}",
            calibration=recipe(folder, rounding, bits),
            calib_data=data,
            eval_data=data,
        )
    report = made[-1].report
    return made[-1].drop_pp, report.numerics.sqnr_db, seconds[-1]


if __name__ == "__main__":
    main()

"""The error of INT8 weights alone, rounded to the nearest and adaptively: activations in float.

The graph is the artifact's own with each QuantizeLinear and DequantizeLinear of an activation
taken out, run by ONNX Runtime. Weights of timm's names are random.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import vitedge as ve
from benchmarks import peers
from benchmarks.rounding import ROUNDINGS, TRAINED, recipe
from vitedge.data.open import open_images

MODELS = ("digits", "vit_tiny_patch16_224", "vit_small_patch16_224")
GAIN_DB = 2.0
SAMPLES, HELD_OUT = 64, 16


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    options = parser.parse_args()
    print(peers.host())
    rows, gains = [], []
    for model in options.models:
        for bits in (8, 4):
            with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
                nearest, adaptive = _levels(model, bits, Path(folder))
            rows.append((f"{model}, W{bits}", f"{nearest:.1f}", f"{adaptive:.1f}"))
            gains.append(adaptive - nearest)
    peers.table(("weights alone, dB", "nearest", "adaptive"), rows)
    peers.verdict(f"{min(gains):.1f} dB more at least (≥ {GAIN_DB:g})", min(gains) >= GAIN_DB)


def _levels(model, bits, folder):
    """SQNR of the outputs on images not seen, by the way of rounding."""
    calibration, held_out = _images(model)
    file = str(peers.save_npz(folder / "calib.npz", calibration))
    for rounding in ROUNDINGS:
        fp32, int8 = peers.export_bundles(
            model,
            "onnxruntime",
            folder / rounding,
            file,
            calibration=recipe(folder, rounding, bits),
            num_samples=len(calibration),
        )
        got = _outputs(_float_activations(int8.path / "model.onnx", folder), held_out)
        yield peers.sqnr_db(_outputs(fp32.path / "model.onnx", held_out), got)


def _images(model):
    loaded = ve.load(model, random_weights=model not in TRAINED).identity
    if model in TRAINED:
        data = open_images(model, "calibration", loaded.preprocess, loaded.labels)
        drawn = data.sample(SAMPLES + HELD_OUT, seed=0)
        images = np.concatenate([batch.images for batch in drawn])
    else:
        spec = loaded.preprocess
        images = peers.photographs(SAMPLES + HELD_OUT, spec.height, spec.width, seed=1)
    return images[:SAMPLES], images[SAMPLES:]


def _float_activations(path, folder):
    """`path` without the quantizers of its activations."""
    graph = onnx.load(path)
    makers = {name: node for node in graph.graph.node for name in node.output}
    stays, passed = [], {}
    for node in graph.graph.node:
        source = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.op_type == "QuantizeLinear":
            passed[node.output[0]] = source.input[0]
        elif node.op_type != "QuantizeLinear":
            stays.append(node)
    for node in stays:
        for place, name in enumerate(node.input):
            while name in passed:
                name = passed[name]
            node.input[place] = name
    del graph.graph.node[:]
    graph.graph.node.extend(stays)
    out = folder / "weights.onnx"
    onnx.save(graph, out)
    return out


def _outputs(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return np.concatenate([session.run(None, {entry.name: image[None]})[0] for image in images])


if __name__ == "__main__":
    main()

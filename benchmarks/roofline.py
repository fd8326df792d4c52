"""INT8 multiply-accumulates a second of a ViT, against large INT8 MatMuls in the same run.

The fastest of these is the roof. Where the rest goes is each runtime's own profile, by kind of
layer.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import peers
from vitedge.core.machine import usable_cores
from vitedge.core.progress import SILENT
from vitedge.core.runtime import runtime_of
from vitedge.measure.latency.clock import measure
from vitedge.models.zoo import ZOO
from vitedge.runtimes import open_session
from vitedge.runtimes.onnxruntime import QUANTIZED_PRODUCTS
from vitedge.runtimes.openvino import PRODUCTS as OPENVINO_PRODUCTS

SHARE = 0.7
SQUARE = (2048, 2048, 2048)
PROFILED_RUNS = 9
IR_VERSION = 10
"""Of ONNX; the newest is not read by every runtime."""
ZEROS = {np.uint8: 128}
"""Of activations by their type; our sessions take no int8."""


class Kind(NamedTuple):
    """Layers of one kind in a profile."""

    ms: float
    count: int


def main():
    parser = peers.arguments(__doc__, model="vit_base_patch16_224")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--runtime", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--duration", type=float, default=10.0, help="seconds for each session")
    options = parser.parse_args()
    print(peers.host())
    for batch, runtime in product(options.batch, options.runtime):
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
            _compare(batch, runtime, Path(name), options)


def _compare(batch, runtime, folder, options):
    model = ZOO[options.model]
    images = peers.photographs(8, model.preprocess.height, model.preprocess.width, seed=1)
    calib = str(peers.save_npz(folder / "calib.npz", images))
    _, ours = peers.export_bundles(
        options.model, runtime, folder, calib, num_samples=8, batch=batch
    )
    target, record = ours.manifest.target, ours.manifest.quantization
    macs = batch * sum(layer.figures.macs for layer in record.layers if layer.quantized)
    largest = (batch * model.config.tokens, model.config.width, model.config.mlp_width)
    kinds = list(product((SQUARE, largest), ZEROS))
    roofs = [
        single_matmul(shape, dtype, target, folder / f"roof-{i}")
        for i, (shape, dtype) in enumerate(kinds)
    ]
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(open_session(ours))]
        sessions += [stack.enter_context(peers.open_file(roof, target)) for roof in roofs]
        feeds = [{s.inputs[0].name: noise(s.inputs[0])} for s in sessions]
        timed = measure(sessions, feeds, options.duration)
    names = [f"{options.model}, batch {batch}"]
    names += [f"{dtype.__name__} MatMul " + "×".join(map(str, shape)) for shape, dtype in kinds]
    work = [macs, *(math.prod(shape) for shape, _ in kinds)]
    rates = [w / latency.p50_ms / 1e6 for w, latency in zip(work, timed.latencies, strict=True)]
    roof = max(rates[1:])
    print(f"\n{target.name}")
    peers.table(
        ("", "INT8 GMACs", "p50 ms", "GMACs/s", "of the fastest MatMul"),
        [
            (name, f"{w / 1e9:.2f}", f"{latency.p50_ms:.1f}", f"{r:.0f}", f"{r / roof:.2f}")
            for name, w, latency, r in zip(names, work, timed.latencies, rates, strict=True)
        ],
    )
    profile = PROFILES[runtime](peers.model_file(ours), target, feeds[0])
    total = sum(kind.ms for kind in profile.values())
    print(f"\nprofile, {total:.1f} ms in all")
    peers.table(
        ("", "layers", "ms", "share"),
        [
            (name, kind.count, f"{kind.ms:.2f}", f"{kind.ms / total:.1%}")
            for name, kind in sorted(profile.items(), key=lambda item: -item[1].ms)
            if kind.ms >= total / 1000
        ],
    )
    int8_ms = sum(kind.ms for name, kind in profile.items() if name.endswith(INT8))
    print()
    share = rates[0] / roof
    peers.verdict(f"{share:.2f} of a large INT8 MatMul's MACs/s (≥ {SHARE})", share >= SHARE)
    if share > 1:
        print(
            "      no MatMul here is the roof: writing its float output takes longer than its MACs"
        )
    if int8_ms:
        print(
            f"      INT8 layers take {int8_ms / total:.0%} of the time, at "
            f"{macs / int8_ms / 1e6 / roof:.2f} of that rate; the rest is above",
            flush=True,
        )
    else:
        print("      no layer of the profile says that it is of INT8", flush=True)


def single_matmul(shape, dtype, target, folder):
    """An INT8 MatMul of `shape` (M, K, N), `dtype` in, for `target`; gives its last row only.

    All of M×N is computed in float, as between our layers; copying it out is none of the work.
    """
    m, k, n = shape
    rng = np.random.default_rng(0)
    constants = {
        "weight": rng.integers(-63, 64, (k, n), np.int8),  # no pair of which saturates
        "weight_scale": np.full(n, 0.01, np.float32),
        "weight_zero": np.zeros(n, np.int8),
        "scale": np.float32(0.02),
        "zero": dtype(ZEROS[dtype]),
        "start": np.array([m - 1]),
        "end": np.array([m]),
        "axis": np.array([0]),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "scale", "zero"], ["x"]),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=1
        ),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Slice", ["y", "start", "end", "axis"], ["row"]),
    ]
    graph = helper.make_graph(
        nodes,
        "roof",
        [
            helper.make_tensor_value_info(
                "image", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), (m, k)
            )
        ],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, (1, n))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    folder.mkdir()
    opset = helper.make_opsetid("", target.opset)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.save(model, folder / "source.onnx")
    runtime_of(target).lower(folder / "source.onnx", target, folder, SILENT)
    return folder / ("model.xml" if target.runtime == "openvino" else "model.onnx")


def noise(spec):
    """Any input will do for time."""
    shape = [size or 1 for size in spec.shape]
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8).view(spec.dtype)


INT8 = " INT8"
"""How the names of kinds end whose multiply-accumulates run in INT8."""


def profile_openvino(model, target, feed):
    """Milliseconds a run by kind of layer, as get_profiling_info says."""
    import openvino as ov

    core = ov.Core()
    config = {**target.options, "PERF_COUNT": "YES"}
    config["INFERENCE_NUM_THREADS"] = str(target.threads or usable_cores())
    request = core.compile_model(core.read_model(model), "CPU", config).create_infer_request()
    seen = defaultdict(list)
    for _ in range(PROFILED_RUNS):
        request.infer(feed)
        for layer in request.profiling_info:
            int8 = layer.node_type in OPENVINO_PRODUCTS and (
                "Quantized" in layer.node_type or layer.exec_type.endswith(("I8", "U8"))
            )
            kind = layer.node_type + (INT8 if int8 else "")
            seen[kind, layer.node_name].append(layer.real_time.total_seconds() * 1e3)
    return _by_kind(seen)


def profile_onnxruntime(model, target, feed):
    """Milliseconds a run by operator, from its profiler's JSON."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads or usable_cores()
    options.enable_profiling = True
    options.profile_file_prefix = str(model.parent / "profile")
    for key, value in target.options.items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for _ in range(PROFILED_RUNS):
        session.run(None, feed)
    seen = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
        if event["name"].endswith("_kernel_time"):
            op = event["args"]["op_name"]
            kind = op + (INT8 if op in QUANTIZED_PRODUCTS else "")
            seen[kind, event["name"]].append(event["dur"] / 1e3)
    return _by_kind(seen)


PROFILES = {"openvino": profile_openvino, "onnxruntime": profile_onnxruntime}


def _by_kind(seen):
    """The median of every layer over its runs, summed by kind."""
    found = {}
    for (kind, _), times_ms in seen.items():
        ms, count = found.get(kind, Kind(0.0, 0))
        found[kind] = Kind(ms + median(times_ms), count + 1)
    return found


if __name__ == "__main__":
    main()

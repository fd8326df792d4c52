"""What our clock adds to a run, against a bare loop; and our p50 against benchmark_app's.

All that is compared is measured in turn, in the same run, on the same model and threads.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from math import exp, sqrt
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from benchmarks import peers
from vitedge.core.bundle import open_bundle
from vitedge.core.machine import usable_cores
from vitedge.measure.latency import clock
from vitedge.measure.latency.clock import golden_feed
from vitedge.measure.statistics import ratio_of_medians, students_t
from vitedge.runtimes import open_session

RUN_MS = 1.0
"""The latency at which the clock may add 1%."""
ADDED, P50 = 0.01, 0.03


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--artifacts", type=Path, nargs=2, help="FP32 of onnxruntime and openvino")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--duration", type=float, default=2.0, help="seconds of each in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.artifacts:
            onnx, ir = (open_bundle(path) for path in options.artifacts)
        else:
            onnx, ir = (
                peers.export_bundles("digits", runtime, Path(folder), "digits")[0]
                for runtime in peers.RUNTIMES
            )
        _added(onnx)
        _against_onnxruntime(onnx, options.rounds, options.duration)
        _against_benchmark_app(ir, options.rounds, options.duration, Path(folder))


def _added(bundle):
    """What timing and our session add to each run, on a graph that takes next to no time."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper

    from vitedge.runtimes.onnxruntime import _ONNXRuntimeSession

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    bare = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours, feed = _ONNXRuntimeSession(bare), {"x": np.zeros(1, np.float32)}
    blocks, runs = 5000, 10  # short: few of them meet another process
    times = {"bare": [], "ours": []}
    for _ in range(blocks):
        times["bare"].append(_loop(lambda: bare.run(["y"], feed), runs))
        start = perf_counter_ns()
        clock._time(ours, feed, runs)
        times["ours"].append((perf_counter_ns() - start) / 1e3 / runs)
    bare_us, ours_us = (float(np.median(times[name])) for name in ("bare", "ours"))
    added = (ours_us - bare_us) / (RUN_MS * 1e3)
    print(f"a run of nothing: {bare_us:.2f} µs in a bare loop, {ours_us:.2f} µs by our clock")
    peers.verdict(f"our clock adds {added:.2%} to a run of {RUN_MS:g} ms (< 1%)", added < ADDED)


def _loop(run, runs):
    """Microseconds a run, of `runs` in a bare loop."""
    start = perf_counter_ns()
    for _ in range(runs):
        run()
    return (perf_counter_ns() - start) / 1e3 / runs


def _against_onnxruntime(bundle, rounds, duration_s):
    """Our SingleStream p50 against the median of blocks of a bare loop on the same session."""
    with open_session(bundle) as session:
        feed = golden_feed(bundle, session, None)
        bare, names = session._session, [spec.name for spec in session.outputs]
        run_ms = clock.warm_up(session, feed)
        runs = max(1, round(10 / run_ms))  # blocks of 10 ms: both see the same machine
        blocks = max(rounds, round(rounds * duration_s * 1e3 / 20))
        ours, theirs = np.empty((blocks, runs)), np.empty((blocks, runs))
        for block in range(blocks):
            for one in (True, False) if block % 2 else (False, True):
                if one:
                    ours[block] = clock._time(session, feed, runs)
                else:
                    for i in range(runs):
                        theirs[block, i] = _loop(lambda: bare.run(names, feed), 1) / 1e3
    low, high = ratio_of_medians(ours, theirs)
    ratio = float(np.median(ours) / np.median(theirs))
    fastest = float(ours.min() / theirs.min())
    p50s = f"{np.median(ours):.3f} ms, of a bare loop {np.median(theirs):.3f} ms"
    print(f"\nONNX Runtime, p50 of ours {p50s}")
    _judge(f"a bare loop of {bundle.manifest.name}", ratio, (low, high), ADDED, fastest)


def _against_benchmark_app(bundle, rounds, duration_s, folder):
    """Our p50 against that of OpenVINO's own tool, a process of it in every round."""
    config = folder / "config.json"
    config.write_text(json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(usable_cores())}}))
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-d", "CPU"]
    command += ["-m", str(peers.model_file(bundle)), "-hint", "latency", "-api", "sync"]
    command += ["-infer_precision", "f32", "-t", f"{max(1, round(duration_s))}"]
    command += ["-load_config", str(config)]
    ours, theirs = np.empty((rounds, 2)), np.empty((rounds, 2))
    for turn in range(rounds):
        for mine in (True, False) if turn % 2 else (False, True):
            if mine:
                ours[turn] = _ours(bundle, duration_s)
            else:
                theirs[turn] = _theirs(command)
        print(f"\rround {turn + 1}: {ours[turn, 0] / theirs[turn, 0]:.3f}", end="", flush=True)
    p50s = f"{np.median(ours[:, 0]):.3f} ms, of benchmark_app -hint latency"
    print(f"\nOpenVINO, p50 of ours {p50s} {np.median(theirs[:, 0]):.3f} ms")
    fastest = float(ours[:, 1].min() / theirs[:, 1].min())
    ratio, interval = _mean(ours[:, 0] / theirs[:, 0])
    _judge(f"benchmark_app on {bundle.manifest.name}", ratio, interval, P50, fastest)


def _ours(bundle, duration_s):
    """p50 and the fastest run, milliseconds."""
    with open_session(bundle) as session:
        feed = golden_feed(bundle, session, None)
        timed = clock.measure([session], [feed], duration_s)
    return timed.latencies[0].p50_ms, float(timed.rounds[0].min())


def _theirs(command):
    """Its median and its fastest run, milliseconds; at times it prints neither, and runs again."""
    while True:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        median = re.search(r"Median:\s+([\d.]+) ms", said)
        fastest = re.search(r"Min:\s+([\d.]+) ms", said)
        if median and fastest:
            return float(median[1]), float(fastest[1])


def _mean(ratios):
    """Geometric mean and its 95% interval."""
    logs = np.log(ratios)
    margin = students_t(0.95, len(logs) - 1) * float(logs.std(ddof=1)) / sqrt(len(logs))
    middle = float(logs.mean())
    return exp(middle), (exp(middle - margin), exp(middle + margin))


def _judge(what, ratio, interval, limit, fastest):
    low, high = interval
    inside = 1 - limit <= low and high <= 1 + limit
    apart = low > 1 + limit or high < 1 - limit
    peers.verdict(
        f"{ratio:.4f}× the p50 of {what} (95% {low:.4f} to {high:.4f}; within {limit:.0%})",
        inside if inside or apart else None,
    )
    print(f"      the fastest run, which other load hardly touches: {fastest:.4f}×")


if __name__ == "__main__":
    main()

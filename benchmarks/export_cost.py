"""Time and memory of `vitedge export --int8` against NNCF on the same model and images.

Every run is a process of its own, in turn with the others. Ours starts from the torch module, and
also writes and checks an FP32 bundle; NNCF starts from that FP32 model, exported beforehand.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import peers

SAMPLE_S = 0.01
PTQ = "PTQ: "
OURS, PEER = "vitedge export --int8", "nncf, OpenVINO model"
GROWTH = 0.1
"""That peak memory of PTQ may differ by from that with fewer images: it keeps none of them."""


def main():
    parser = peers.arguments(__doc__, model="vit_base_patch16_224")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", nargs="+", type=int, default=[32, 300])
    parser.add_argument("--calibration", default="default")
    parser.add_argument("--no-onnx", action="store_true", help="leave NNCF's ONNX path out")
    options = parser.parse_args()
    peaks_mib = []
    for samples in options.samples:
        with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as name:
            peaks_mib.append(_compare(options.model, samples, options, Path(name)))
    growth = max(abs(peak_mib / peaks_mib[0] - 1) for peak_mib in peaks_mib)
    peers.verdict(
        f"PTQ alone: peak within {growth:.1%} of that with {options.samples[0]} images "
        f"(±{GROWTH:.0%})",
        growth <= GROWTH,
    )


def _compare(model, samples, options, folder):
    """Print the comparison with so many images; returns our peak memory in PTQ, MiB."""
    from vitedge.models.zoo import ZOO

    spec = ZOO[model].preprocess
    calib = peers.save_npz(
        folder / "calib.npz", peers.photographs(samples, spec.height, spec.width, seed=1)
    )
    weights = [model, "--random-weights"]
    for runtime in peers.RUNTIMES:  # the peers' FP32 input
        _child("ours", [*weights, "--target", runtime, "--fp32", "--output", folder / "fp32"])
    (xml,) = (folder / "fp32").glob("*/model.xml")
    (onnx,) = (folder / "fp32").glob("*/model.onnx")
    ours_int8 = [*weights, *("--target", "openvino", "--int8", "--duration", 0, "--force")]
    ours_int8 += ["--calib-data", calib, "--num-samples", samples, "--output", folder / "ours"]
    jobs = {
        OURS: ("ours", [*ours_int8, "--calibration", options.calibration]),
        PEER: ("nncf_openvino", [xml, calib, folder / "ov"]),
    }
    if not options.no_onnx:
        jobs["nncf, ONNX model"] = ("nncf_onnx", [onnx, calib, folder / "onnx"])
    runs = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, (kind, arguments) in jobs.items():
            runs[name].append(_child(kind, arguments))
    ours, peer = runs[OURS], runs[PEER]
    print(f"{model}, {samples} images, median of {options.rounds} rounds in turn\n")
    peers.table(
        ("", "wall s", "× nncf", "cpu s", "peak MiB", "× nncf", "anon MiB"),
        [
            (
                name,
                f"{_med(run, 'wall'):.1f}",
                f"{_ratio(run, peer, 'wall'):.2f}",
                f"{_med(run, 'cpu'):.1f}",
                f"{_med(run, 'peak'):.0f}",
                f"{_ratio(run, peer, 'peak'):.2f}",
                f"{_med(run, 'anon'):.0f}",
            )
            for name, run in runs.items()
        ],
    )
    print("\nours, by step")
    rows = []
    for step in ours[0]["steps"]:
        medians = map(median, zip(*(run["steps"][step] for run in ours), strict=True))
        cells = zip(medians, (2, 2, 0, 0), strict=True)
        rows.append((step, *(f"{value:.{digits}f}" for value, digits in cells)))
    peers.table(("", "wall s", "cpu s", "peak MiB", "anon MiB"), rows)
    print()
    wall, peak = _ratio(ours, peer, "wall"), _ratio(ours, peer, "peak")
    peers.verdict(f"wall time {wall:.2f}× of NNCF's OpenVINO path (≤ 1.3×)", wall <= 1.3)
    peers.verdict(f"peak memory {peak:.2f}× of NNCF's OpenVINO path (≤ 1.0×)", peak <= 1.0)
    return _ptq_verdicts(ours, peer)


def _ptq_verdicts(ours, peer):
    """PTQ alone: ours from FP32 file to INT8 file, theirs the call of nncf.quantize.

    Returns our peak memory, MiB.
    """

    def cost(run):
        steps = [row for step, row in run["steps"].items() if step.startswith(PTQ)]
        wall, cpu = (sum(row[i] for row in steps) for i in (0, 1))
        return {"wall": wall, "cpu": cpu, "peak": max(row[2] for row in steps)}

    ptq, theirs = [cost(run) for run in ours], [cost(run) for run in peer]
    wall, cpu, peak = (_ratio(ptq, theirs, key) for key in ("wall", "cpu", "peak"))
    peers.verdict(
        f"PTQ alone: {_med(ptq, 'wall'):.1f} s, {wall:.2f}× of nncf.quantize "
        f"(≤ 0.5×; {cpu:.2f}× of its CPU time)",
        wall <= 0.5,
    )
    peers.verdict(
        f"PTQ alone: peak {_med(ptq, 'peak'):.0f} MiB, {peak:.2f}× of nncf.quantize (≤ 1.0×)",
        peak <= 1.0,
    )
    print(flush=True)
    return _med(ptq, "peak")


def _med(runs, key):
    return median(run[key] for run in runs)


def _ratio(runs, others, key):
    """Median over rounds of the ratio within a round."""
    return median(run[key] / other[key] for run, other in zip(runs, others, strict=True))


def _child(kind, arguments):
    command = [sys.executable, "-m", "benchmarks.export_cost", "--child", kind]
    seconds = []
    with peers.timed(seconds):
        child = subprocess.run(
            [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
        )
    return {**json.loads(child.stdout.splitlines()[-1]), "wall": seconds[0]}


# -- in the child -------------------------------------------------------------------------------


class _Phases:
    """Stands in for vitedge.core.progress.Steps: time, CPU and peak memory between its calls."""

    def __init__(self):
        self.steps: dict[str, list[float]] = {}
        self._step, self._anon = "start", 0.0
        self._prefix = ""
        self._since = time.perf_counter() - time.process_time()  # near enough to the exec
        self._cpu = 0.0
        threading.Thread(target=self._sample, daemon=True).start()

    def __call__(self, step, done, total):
        self.say(step)

    @contextmanager
    def ptq(self):
        """Mark the steps within as those of PTQ alone."""
        self._prefix = PTQ
        self.say("starting")
        yield
        self._prefix = ""
        self.say("after PTQ")

    def say(self, step):
        step = self._prefix + step
        if step == self._step:
            return
        now, cpu = time.perf_counter(), time.process_time()
        row = self.steps.setdefault(self._step, [0.0, 0.0, 0.0, 0.0])
        row[0] += now - self._since
        row[1] += cpu - self._cpu
        row[2] = max(row[2], peers.memory_mib("VmHWM"))
        row[3] = max(row[3], self._anon)
        self._step, self._since, self._cpu, self._anon = step, now, cpu, 0.0
        peers.forget_peak()

    def _sample(self):
        while True:
            self._anon = max(self._anon, peers.memory_mib("RssAnon"))
            time.sleep(SAMPLE_S)

    def result(self):
        self.say("end")
        return {
            "peak": max(row[2] for row in self.steps.values()),
            "anon": max(row[3] for row in self.steps.values()),
            "cpu": time.process_time(),
            "steps": self.steps,
        }


def _run_child(kind, arguments):
    phases = _Phases()
    if kind == "ours":
        from vitedge.cli.main import app
        from vitedge.core import progress

        @contextmanager
        def steps():
            yield phases

        progress.steps = steps
        with peers.within_ptq(phases.ptq):
            app(["export", *arguments], standalone_mode=False)
    else:
        import numpy as np

        phases.say("importing")
        import nncf

        quantize = nncf.quantize

        def timed(*args, **kwargs):
            with phases.ptq():
                return quantize(*args, **kwargs)

        nncf.quantize = timed
        phases.say("reading")
        fp32, calib, out = map(Path, arguments)
        images = np.load(calib)["images"]
        getattr(peers, kind)(
            fp32,
            [images[i : i + 1] for i in range(len(images))],
            out,
            subset_size=len(images),
            model_type="transformer",
            preset="performance",
        )
    print(json.dumps(phases.result()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _run_child(sys.argv[2], sys.argv[3:])
    else:
        main()

"""A sweep of digits × 4 targets × 3 recipes: one after the other, and by two of Ray's workers.

python -m benchmarks.sweep_scale

Both keep each trial to one core, time nothing and begin with an empty cache. Prints the ratio of
their times, whether every figure is equal, and what Ray itself takes of a trial.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks import peers
from vitedge.export.sweep.row import Row

SWEEP = """
targets = ["onnxruntime-cpu", "openvino-cpu", "onnxruntime-arm", "onnxruntime-vnni"]
calibrations = ["default", "fast", "auto"]
duration_s = 0
[[models]]
model = "digits"
"""
OVERHEAD = """
import sys, time
from pathlib import Path
from vitedge.export.sweep.spec import Resources
from vitedge.export.sweep.workers import InSequence, workers
calls = [(n,) for n in range(40)]
began = time.perf_counter(); list(InSequence().run(abs, calls)); alone = time.perf_counter() - began
began = time.perf_counter()
with workers(2, "", Resources(memory_gb=0.1), Path(sys.argv[1])) as able:
    start = time.perf_counter() - began
    list(able.run(abs, calls[:2]))
    began = time.perf_counter(); list(able.run(abs, calls)); ray = time.perf_counter() - began
print(start, (ray - alone) / len(calls))
"""


def main():
    peers.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        file = Path(folder) / "sweep.toml"
        file.write_text(SWEEP)
        alone_s, alone = run(file, Path(folder) / "alone")
        ray_s, by_ray = run(file, Path(folder) / "ray", "--workers", "2")
        text = subprocess.run(
            [sys.executable, "-c", OVERHEAD, folder], capture_output=True, text=True, check=True
        ).stdout
    start_s, overhead_s = map(float, text.split())
    rows = [("one after the other", f"{alone_s:.1f}"), ("2 workers of Ray", f"{ray_s:.1f}")]
    peers.table(("", "s"), [*rows, ("Ray's start", f"{start_s:.1f}")])
    peers.verdict(f"the same {len(alone)} figures", alone == by_ray and len(alone) == 12)
    peers.verdict(f"{ray_s / alone_s:.2f}× the time (0.65)", ray_s <= 0.65 * alone_s)
    peers.verdict(f"{overhead_s:.3f} s of Ray a trial (1)", overhead_s <= 1)


def run(file, output, *arguments):
    """How long a sweep takes, s, and what each of its trials came to."""
    command = [sys.executable, "-m", "vitedge", "sweep", file, "--output", output, *arguments]
    began_s = time.monotonic()
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=quiet)
    return time.monotonic() - began_s, figures(output)


def figures(output):
    """What each trial came to, without what is of the moment."""
    rows = [msgspec.json.decode(p.read_bytes(), type=Row) for p in (output / "trials").iterdir()]
    return {
        row.trial: (
            row.state,
            row.error,
            row.report and msgspec.structs.replace(row.report, host=None),
        )
        for row in rows
    }


if __name__ == "__main__":
    main()

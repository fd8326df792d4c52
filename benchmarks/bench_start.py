"""From launching `vitedge bench` to its first run, and to its first timed one: a 22 MB model.

The first run is one of warm-up: from there on bench measures, to know when latency is steady.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import peers

LIMIT_S = 1.0
MODEL = "vit_tiny_patch16_224"
LAUNCH = """
import os, sys, time
from vitedge.measure.latency import clock

warm_up = clock.warm_up

def stamped(*how):
    stamps = [time.monotonic(), time.process_time()]
    warm_up(*how)
    heavy = sorted(sys.modules.keys() & {"torch", "onnx"})
    print(*stamps, time.monotonic(), heavy, flush=True)
    os._exit(0)

clock.warm_up = stamped
from vitedge.cli.main import run
sys.argv = ["vitedge", "bench", *sys.argv[1:]]
run()
"""
"""`vitedge bench` of one FP32 artifact, stopped where its warm-up ends and timing begins."""


def _size_mb(bundle):
    return sum(file.stat().st_size for file in bundle.glob("model.*")) / 1e6


def main():
    parser = peers.arguments(__doc__)
    parser.add_argument("--artifacts", type=Path, nargs="*", default=[])
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.artifacts or _exported(Path(folder))
        rows = {path: [_start(path) for _ in range(options.starts + 1)][1:] for path in paths}
        size_mb = {path: _size_mb(path) for path in paths}
    peers.table(
        ("", "MB", "first run s", "fastest s", "of CPU time s", "first timed run s"),
        [
            (
                path.name,
                f"{size_mb[path]:.1f}",
                f"{median(start.run_s for start in starts):.2f}",
                f"{min(start.run_s for start in starts):.2f}",
                f"{median(start.cpu_s for start in starts):.2f}",
                f"{median(start.timed_s for start in starts):.2f}",
            )
            for path, starts in rows.items()
        ],
    )
    for path, starts in rows.items():
        wall, cpu = (
            median(times) for times in zip(*((s.run_s, s.cpu_s) for s in starts), strict=True)
        )
        peers.verdict(
            f"{path.name} runs {wall:.2f} s after launch, {cpu:.2f} s of them CPU time (< 1 s)",
            None if cpu < LIMIT_S <= wall else wall < LIMIT_S,  # a busy machine cannot tell
        )


def _exported(folder):
    return [x.bundle.path for x in peers.export(MODEL, peers.RUNTIMES, folder, "fp32")]


class Start(NamedTuple):
    """Seconds from launching a process."""

    run_s: float
    cpu_s: float
    """CPU time until then, of all its threads."""
    timed_s: float


def _start(path):
    launched = time.monotonic()
    command = [sys.executable, "-c", LAUNCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run, cpu, timed, heavy = done.stdout.split(maxsplit=3)
    assert heavy.strip() == "[]", f"imported {heavy}"
    return Start(float(run) - launched, float(cpu), float(timed) - launched)


if __name__ == "__main__":
    main()

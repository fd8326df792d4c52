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

from tests.benchmarks import peers
from vitedge.models.sources import Request
from vitedge.pipeline import export
from vitedge.plan import ExportRequest

LIMIT_S = 1.0
MODEL = "vit_tiny_patch16_224"
LAUNCH = """
import os, sys, time
from vitedge.bench import clock

warm_up = clock.warm_up

def stamped(*how):
    first = time.monotonic()
    warm_up(*how)
    print(first, time.monotonic(), sorted(sys.modules.keys() & {"torch", "onnx"}), flush=True)
    os._exit(0)

clock.warm_up = stamped
from vitedge.cli import run
sys.argv = ["vitedge", "bench", *sys.argv[1:]]
run()
"""
"""`vitedge bench` of one FP32 artifact, stopped where its warm-up ends and timing begins."""


def main() -> None:
    parser = peers.arguments(__doc__)
    parser.add_argument("--artifacts", type=Path, nargs="*", default=[])
    parser.add_argument("--starts", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = options.artifacts or _exported(Path(folder))
        rows = {path: [_start(path) for _ in range(options.starts + 1)][1:] for path in paths}
    header = ("", "MB", "first run, median s", "fastest s", "first timed run, median s")
    peers.table(
        header,
        [
            (
                path.name,
                f"{sum(file.stat().st_size for file in path.glob('model.*')) / 1e6:.1f}",
                f"{median(run for run, _ in starts):.2f}",
                f"{min(run for run, _ in starts):.2f}",
                f"{median(timed for _, timed in starts):.2f}",
            )
            for path, starts in rows.items()
        ],
    )
    for path, starts in rows.items():
        middle = median(run for run, _ in starts)
        peers.verdict(f"{path.name} runs {middle:.2f} s after launch (< 1 s)", middle < LIMIT_S)


def _exported(folder: Path) -> list[Path]:
    targets = ("onnxruntime", "openvino")
    request = ExportRequest(Request(MODEL, random_weights=True), targets, output=folder)
    return [made.bundle.path for made in export(request, peers.SILENT)]


def _start(path: Path) -> tuple[float, float]:
    """Seconds from launching a process to its first run, and to its first timed one."""
    launched = time.monotonic()
    command = [sys.executable, "-c", LAUNCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run, timed, heavy = done.stdout.split(maxsplit=2)
    assert heavy.strip() == "[]", f"imported {heavy}"
    return float(run) - launched, float(timed) - launched


if __name__ == "__main__":
    main()

"""Memory of files over protobuf's 2 GiB: reading and checking them, and the whole FP32 export.

python -m benchmarks.big_onnx [--gigabytes 2.3]     (4 times that of memory, 7 times of disk)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import peers
from tests.support.big_onnx import DATA, peak_bytes, with_blocks, with_table

READ, EXPORT = 1.5, 4.0
"""What peak memory may be, over the size of the data file."""
SOURCES = {"a sparse table": with_table, "random weights": with_blocks}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.3)
    parser.add_argument("--folder", type=Path, help="where there is room; default: a temporary one")
    options = parser.parse_args()
    print("| file | what | s | peak GB | of the file |\n|---|---|---|---|---|", flush=True)
    met = []
    for name, make in SOURCES.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = make(Path(folder), int(1e9 * options.gigabytes))
            size = (path.parent / DATA).stat().st_size
            for what, arguments, limit in _jobs(path):
                start = time.perf_counter()
                peak = peak_bytes(*arguments)
                peers.markdown(
                    [
                        *(f"{name}, {size / 1e9:.2f} GB", what),
                        *(f"{time.perf_counter() - start:.0f}", f"{peak / 1e9:.2f}"),
                        f"{peak / size:.2f}×",
                    ]
                )
                met.append((f"{name}: {what} in {limit}× of the file", peak <= limit * size))
    for what, fits in met:
        peers.verdict(what, fits)


def _jobs(path):
    """What is measured, as arguments of `python`, and its limit."""
    read = f"from pathlib import Path; from vitedge.graph.io import read; read(Path({str(path)!r}))"
    targets = ("--target", "onnxruntime-cpu", "--target", "openvino-cpu")
    to = ("--duration", "0", "--output", path.parent / "out")
    export = ("export", path, "--preprocess", path.with_name("p.toml"), *targets, *to)
    yield "read, checked, hashed", ("-c", read), READ
    yield "exported, both runtimes", ("-m", "vitedge", *export), EXPORT


if __name__ == "__main__":
    main()
